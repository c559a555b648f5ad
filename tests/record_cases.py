"""The commands of record.py, with the option names of before the refactor.

A line is `name: command`; the folder or file {o}, o/NAME, is described after it. `name @PATH: command` describes PATH
instead. `name +weights` needs real weights. Lines run in their order, in one folder in which c is the corpus.
"""

import re

_SHORT = {
    # the smallest settings that still train
    "$TINY": "device=cpu precision=float32 data.root=c data.domain=demo data.load_size=36 data.crop_size=32 "
    "method.generator.width=4 method.generator.blocks=1 method.generator.downsamplings=1 method.discriminator.width=4 "
    "training.log_every=1 training.checkpoint_every=2 training.sample_every=4 training.sample_count=2",
    # training alone, without validation and test
    "$ALONE": "train c/settings/default_cyclegan.yaml $TINY $LAYERS data.a=c/demo/trainA data.b=c/demo/trainB "
    "data.held_out=0 training.steps=3 --out {o}",
    "$CARTOON": "train c/settings/photo2cartoon_cartoongan.yaml $TINY data.a=c/demo/trainA data.b=c/demo/trainB "
    "data.held_out=0 training.steps=4 method.warm_up=0.5 --out {o}",
    "$LAYERS": "method.discriminator.layers=2",
    "$BOTH": "data.a=c/five data.b=c/other",
    "$REFUSED": "train c/settings/default_cyclegan.yaml $TINY $LAYERS training.stop_at=1 --out {o}",
    "$STRONG": "translate c/models/strong.safetensors --device cpu --precision float32 --output {o}",
    "$RUN": "translate c/models/cyclegan --device cpu --precision float32 --output {o}",
    "$FOLDERS": "evaluate --pictures c/five --reference c/other --json {o}.json",
    "$EXPORT": "export c/models/strong.safetensors",
}

_CASES = r"""
# What the command line says of itself
help: --help
version: --version
methods: methods
help-train: train --help
help-translate: translate --help
help-evaluate: evaluate --help
help-import: import --help
help-export: export --help
help-curves: curves --help
help-app: app --help
help-bench: bench --help
help-data: data --help
help-data-check: data check --help
help-data-demo: data demo --help
help-data-frames: data frames --help
help-data-get: data get --help
help-data-smooth: data smooth --help

# Training
train-cyclegan: train c/settings/default_cyclegan.yaml $TINY $LAYERS training.steps=5 evaluation.every=2 --out {o}
train-cyclegan-quiet: --quiet train c/settings/default_cyclegan.yaml $TINY $LAYERS training.steps=2 --out {o}
train-cartoongan: train c/settings/photo2cartoon_cartoongan.yaml $TINY training.steps=6 method.warm_up=0.5 evaluation.every=3 --out {o}
train-published: train c/settings/default_cyclegan_published.yaml $TINY training.steps=null training.epochs=1 method.discriminator.layers=1 training.sample_every=20 training.checkpoint_every=20 evaluation.every=20 --out {o}
train-unsplit: train c/settings/default_cyclegan.yaml $TINY $LAYERS data.domain=unsplit training.steps=2 --out {o}
train-unsplit-share: train c/settings/default_cyclegan.yaml $TINY $LAYERS data.domain=unsplit data.held_out=0.2 training.steps=2 evaluation.export=last --out {o}
train-random-features: train c/settings/default_cyclegan.yaml $TINY $LAYERS evaluation.features=random evaluation.protocol=legacy evaluation.pictures=4 training.steps=2 evaluation.every=1 evaluation.score=ba/kernel_random --out {o}
train-folders: train c/settings/default_cyclegan.yaml $TINY $LAYERS data.a=c/demo/trainA data.b=c/demo/trainB data.test_a=c/demo/testA data.test_b=c/demo/testB training.steps=2 --out {o}
train-domain @runs/demo: train --domain demo --method cyclegan $TINY $LAYERS training.steps=2
train-domain-again @runs/demo: train --domain demo $TINY $LAYERS training.steps=1
train-dry-run: train c/settings/default_cyclegan.yaml $TINY $LAYERS training.steps=5 --dry-run --out {o}
train-dry-run-gpu-recipe: train c/settings/default_cartoongan.yaml data.root=c data.domain=demo data.load_size=36 data.crop_size=32 device=cpu --dry-run
train-flat: train c/settings/photo2cartoon_cartoongan.yaml $TINY data.a=c/flat/trainA data.b=c/flat/trainB data.held_out=0 training.steps=1 --dry-run
train-whole: $ALONE training.steps=6 training.sample_every=2
train-stopped: $ALONE training.steps=6 training.sample_every=2 training.stop_at=3
train-resumed @o/train-stopped: train --resume o/train-stopped
train-resumed-again @o/train-stopped: train --resume o/train-stopped
train-longer @o/train-stopped: train --resume o/train-stopped training.steps=8 data.workers=0 training.log_every=2
train-resumed-worker: $ALONE training.steps=6 training.sample_every=2 training.stop_at=1 data.workers=1
train-resumed-worker-on @o/train-resumed-worker: train --resume o/train-resumed-worker data.workers=0 data.cache=never
train-cartoon-whole: $CARTOON
train-cartoon-stopped: $CARTOON training.stop_at=2
train-cartoon-resumed @o/train-cartoon-stopped: train --resume o/train-cartoon-stopped/
train-cartoon-weights -weights: $CARTOON method.features.network=squeezenet1_1 method.features.weights=auto
train-cartoon-vgg +weights: $CARTOON method.features.network=vgg19_normalised training.steps=2 method.features.layer=relu2_1
train-cartoon-random: $CARTOON method.features.network=random method.differentiable_augmentation=[colour,translation,cutout] method.adversarial=lsgan method.decay_at=[0.5]
train-cartoon-two: $CARTOON method.generator.convolutions=2 method.generator.padding=reflect method.discriminator.downsamplings=2 training.batch_size=2
train-v-batch: $ALONE training.batch_size=2
train-v-accumulation: $ALONE training.accumulation=2
train-v-no-ema: $ALONE training.ema=0
train-v-bce: $ALONE method.adversarial=bce
train-v-no-identity: $ALONE method.identity_weight=0 method.replay=0
train-v-replay: $ALONE method.replay=2 training.steps=6
train-v-transposed: $ALONE method.generator.upsampling=transposed method.generator.downsamplings=2
train-v-affine: $ALONE method.generator.affine=true method.generator.eps=1e-3 method.generator.padding=reflect
train-v-start-nothing: $ALONE method.generator.start_from=nothing
train-v-start-picture: $ALONE method.generator.start_from=picture
train-v-squash: $ALONE data.resize=squash data.a=c/five data.b=c/other
train-v-short-side: $ALONE data.resize=short_side data.a=c/five data.b=c/other
train-v-no-resize: $ALONE data.resize=none data.flip=0 data.a=c/five data.b=c/other
train-v-upscale: $ALONE data.upscale=true data.load_size=64 data.crop_size=64
train-v-augmentations: $ALONE "data.augmentations=[{name: ColorJitter, p: 1}, {name: Rotate, limit: 10, p: 0.5}]"
train-v-differentiable: $ALONE method.differentiable_augmentation=[colour,translation,cutout]
train-v-clip: $ALONE training.gradient_clip=0.1
train-v-activation: $ALONE training.activation_checkpointing=true
train-v-decay: $ALONE training.steps=null training.epochs=2 method.decay_by=epoch method.decay_from=0.25 training.sample_every=50 training.checkpoint_every=50
train-v-bfloat16: $ALONE precision=bfloat16
train-v-seed: $ALONE seed=7
train-v-cache: $ALONE data.cache={o}-cache
train-v-cache-again: $ALONE data.cache=o/train-v-cache-cache
train-v-no-cache: $ALONE data.cache=never
train-v-worker: $ALONE data.workers=1
train-v-from-run: $ALONE training.init_from=c/models/cyclegan
train-v-from-file: $ALONE training.init_from=c/models/cyclegan/generator.safetensors
train-v-steep: $ALONE method.betas=[0.9,0.99] method.learning_rate=1e-2 method.cycle_weight=3.5
train-awkward: $ALONE data.a=c/whole data.b=c/few data.upscale=true training.steps=40 training.sample_every=50 training.checkpoint_every=50 data.skip_broken=true
train-skip-broken: $ALONE data.a=c/damaged/trainA data.skip_broken=true
train-links: $ALONE data.a=c/links/trainA data.skip_broken=true
train-nonfinite: $ALONE method.learning_rate=1e30 training.steps=8
train-nonfinite-skip: $ALONE method.learning_rate=1e30 training.steps=8 training.on_nonfinite=skip
train-mixed: train c/settings/default_cyclegan.yaml $TINY $LAYERS data.domain=mixed data.upscale=true training.steps=2 --out {o}

# Translating pictures
translate-awkward: $STRONG c/awkward
translate-awkward-same: $STRONG c/awkward --format same
translate-awkward-jpeg: $STRONG c/awkward --format jpeg --quality 50 --chroma 4:2:0
translate-awkward-webp: $STRONG c/awkward --format webp --suffix _cartoon
translate-awkward-tiff: $STRONG c/awkward --format tiff
translate-awkward-luma: $STRONG c/awkward --preserve-color luma
translate-awkward-statistics: $STRONG c/awkward --preserve-color statistics --strength 0.5
translate-awkward-half: $STRONG c/awkward --scale 0.5
translate-awkward-strips: $STRONG c/awkward --memory 1M
translate-whole: $STRONG c/whole
translate-whole-same: $STRONG c/whole --format same
translate-broken: $STRONG c/broken
translate-avif: $STRONG c/few --format avif --chroma 4:2:2 --quality 60
translate-few: $STRONG c/few --suffix _x
translate-few-resume @o/translate-few: translate c/models/strong.safetensors c/few --output o/translate-few --suffix _x --resume --device cpu --precision float32
translate-some: $STRONG c/some
translate-some-resume @o/translate-some: translate c/models/strong.safetensors c/some --output o/translate-some --resume --device cpu --precision float32
translate-same-resume: $STRONG c/few --format same --resume
translate-jpeg-full: $STRONG c/few --format jpeg
translate-strength-0: $STRONG c/few --strength 0
translate-look: $STRONG c/few --strength 0.7 --preserve-color luma --scale 0.7
translate-bfloat16: translate c/models/strong.safetensors c/few --output {o} --device cpu --precision bfloat16
translate-auto: translate c/models/strong.safetensors c/few --output {o}
translate-max-pixels: $STRONG c/whole --max-pixels 700
translate-one-file @o/one: translate c/models/strong.safetensors c/few/turned6.jpg --output o/one/x.webp --quality 90 --device cpu
translate-one-folder: $STRONG c/few/turned6.jpg
translate-one-tiff @o/deep.tif: translate c/models/strong.safetensors c/awkward/adobe16.tif --output o/deep.tif --device cpu --precision float32
translate-inside @c/few: translate c/models/strong.safetensors c/few/below --output c/few --device cpu --precision float32
translate-quiet: --quiet $STRONG c/few/turned6.jpg
translate-run: $RUN c/demo/testA
translate-run-ba: $RUN c/demo/testB --direction ba
translate-run-bare: translate c/models/bare c/demo/testA --output {o} --device cpu --precision float32
translate-run-cartoongan: translate c/models/cartoongan c/demo/testA --output {o} --device cpu --precision float32
translate-checkpoint: translate c/models/cyclegan/checkpoints/step-0000002.pt c/demo/testA --output {o} --device cpu --precision float32
translate-made-here: translate o/train-cyclegan c/demo/testA --output {o} --device cpu --precision float32
translate-latest: translate runs/demo/cyclegan/latest c/demo/testA/ --output {o} --device cpu --precision float32
translate-photos: $STRONG c/inputs/photos
translate-photos-strips: $STRONG c/inputs/photos --memory 4M --scratch o
translate-photos-strips-look: $STRONG c/inputs/photos --memory 4M --preserve-color luma --strength 0.8 --scale 0.6
translate-photos-fast: $STRONG c/inputs/photos --memory 4M --fast
translate-inputs: $STRONG c/inputs
translate-inputs-same: $STRONG c/inputs --format same
translate-labels: $STRONG c/inputs/labels_gray_folder

# Films
film-plain @o/f1.mp4: $STRONG1 c/videos/clip.mp4 --output o/f1.mp4
film-resume @o/f1.mp4: $STRONG1 c/videos/clip.mp4 --output o/f1.mp4 --resume
film-smooth @o/f2.mp4: $STRONG1 c/videos/moves.mp4 --output o/f2.mp4 --smooth --crf 8
film-cuts @o/f3.mkv: $STRONG1 c/videos/cuts.mp4 --output o/f3.mkv --smooth --window 3
film-alone @o/f4.mkv: $STRONG1 c/videos/clip.mp4 --output o/f4.mkv --window 1 --every 2 --start 0:00.3 --end 1
film-frames: $STRONG c/videos/clip.mp4 --start 0.4 --end 1s
film-frames-again @o/film-frames: $STRONG1 c/videos/clip.mp4 --output o/film-frames
film-frames-jpeg: $STRONG c/videos/clip.mp4 --format jpeg --suffix _x --quality 5 --chroma 4:2:0 --end 0.3
film-from-frames @o/f5.mov: $STRONG1 c/drawn --output o/f5.mov --fps 24000/1001
film-from-frames-default @o/f6.mp4: $STRONG1 c/drawn --output o/f6.mp4
film-folder: $STRONG c/drawn --frames --smooth
film-folder-part: $STRONG c/drawn --frames --fps 2 --start 1s --every 2 --window 2
film-folder-odd: $STRONG c/drawn_odd --frames
film-folder-odd-film @o/f7.mp4: $STRONG1 c/drawn_odd --output o/f7.mp4
film-times @o/f8.mp4: $STRONG1 c/videos/times.mkv --output o/f8.mp4
film-late @o/f9.mp4: $STRONG1 c/videos/late.mkv --output o/f9.mp4
film-turned @o/f10.mp4: $STRONG1 c/videos/turned.mp4 --output o/f10.mp4
film-turned-frames: $STRONG c/videos/turned.mp4 --end 0.2
film-aspect @o/f11.mp4: $STRONG1 c/videos/aspect.mp4 --output o/f11.mp4
film-deep @o/f12.mkv: $STRONG1 c/videos/deep.mkv --output o/f12.mkv
film-deep-frames: $STRONG c/videos/deep.mkv --end 0.2
film-full @o/f13.mkv: $STRONG1 c/videos/full.mkv --output o/f13.mkv
film-odd @o/f14.mp4: $STRONG1 c/videos/odd.mkv --output o/f14.mp4
film-old @o/f15.avi: $STRONG1 c/videos/old.avi --output o/f15.avi
film-webm @o/f16.webm: $STRONG1 c/videos/clip.mp4 --output o/f16.webm --end 0.3
film-broken @o/f17.mp4: $STRONG1 c/videos/broken.mkv --output o/f17.mp4
film-look @o/f18.mkv: $STRONG1 c/videos/clip.mp4 --output o/f18.mkv --strength 0.5 --preserve-color luma --scale 0.5
film-fast @o/f19.mp4: $STRONG1 c/videos/clip.mp4 --output o/f19.mp4 --fast --end 0.2
film-strips @o/f20.mp4: $STRONG1 c/videos/moves.mp4 --output o/f20.mp4 --memory 2M
film-allowed @o/f21.mp4: $STRONG1 c/videos/clip.mp4 --output o/f21.mp4 --max-pixels 3072 --end 0.2
film-hdr @o/f22.mp4: $STRONG1 c/inputs/hdr_white203.mp4 --output o/f22.mp4
film-sar @o/f23.mp4: $STRONG1 c/inputs/sar.mp4 --output o/f23.mp4
film-sar-frames: $STRONG c/inputs/sar.mp4 --every 5
film-alpha @o/f24.mkv: $STRONG1 c/inputs/alpha.webm --output o/f24.mkv
film-anim @o/f25.mp4: $STRONG1 c/inputs/anim.gif --output o/f25.mp4
film-among-pictures: $STRONG c/videos

# Exporting
export-onnx @o/e1.onnx: $EXPORT --to onnx --out o/e1.onnx
export-onnx-float @o/e2.onnx: $EXPORT --to onnx --out o/e2.onnx --pixels float
export-onnx-half @o/e3.onnx: $EXPORT --to onnx --out o/e3.onnx --precision float16
export-onnx-int8 @o/e4.onnx: export c/models/cyclegan --to onnx --out o/e4.onnx --precision int8
export-onnx-int8-given @o/e5.onnx: export c/models/cyclegan/generator.safetensors --to onnx --out o/e5.onnx --precision int8 --calibrate c/demo/trainA
export-onnx-int8-demo @o/e6.onnx: export c/models/cyclegan/generator.safetensors --to onnx --out o/e6.onnx --precision int8
export-onnx-int8-poor @o/e7.onnx: $EXPORT --to onnx --out o/e7.onnx --precision int8
export-onnx-ba @o/e8.onnx: export c/models/cyclegan --to onnx --out o/e8.onnx --direction ba
export-pt2 @o/e9.pt2: $EXPORT --to pt2 --out o/e9.pt2
export-pt2-half @o/e10.pt2: $EXPORT --to pt2 --out o/e10.pt2 --precision float16
export-pt2-float @o/e11.pt2: $EXPORT --to pt2 --out o/e11.pt2 --pixels float
export-safetensors @o/e12.safetensors: export c/models/cyclegan --to safetensors --out o/e12.safetensors --direction ba
export-safetensors-half @o/e13.safetensors: export c/models/cartoongan --to safetensors --out o/e13.safetensors --precision float16
export-back @o/e14.safetensors: export o/e9.pt2 --to safetensors --out o/e14.safetensors
export-checkpoint @o/e15.safetensors: export c/models/cyclegan/checkpoints/best.pt --to safetensors --out o/e15.safetensors
export-again @o/e16.pt2: export o/e1.onnx --to pt2 --out o/e16.pt2
export-large @o/e17.onnx: export c/models/large.safetensors --to onnx --out o/e17.onnx --precision float16 --pixels float
translate-onnx: translate o/e1.onnx c/few --output {o} --precision float32
translate-onnx-float: translate o/e2.onnx c/few --output {o} --precision float32
translate-onnx-int8: translate o/e4.onnx c/demo/testA --output {o} --precision float32
translate-onnx-memory: translate o/e1.onnx c/inputs/photos --output {o} --memory 4M
translate-onnx-film @o/e1.mkv: translate o/e1.onnx c/videos/clip.mp4 --output o/e1.mkv --end 0.3
translate-pt2: translate o/e9.pt2 c/few --output {o} --precision float32
translate-half: translate o/e13.safetensors c/demo/testA --output {o} --precision float32

# Other projects' generators
import-cyclegan @o/i1.safetensors: import c/foreign/latest_net_G_A.pth o/i1.safetensors
import-b @o/i2.safetensors: import c/foreign/200_net_G_B.pth o/i2.safetensors
import-options @o/i3.safetensors: import c/foreign/small_net_G.pth o/i3.safetensors --direction ba --load-size 64 --crop-size 48 --resize none --licence "CC BY"
import-cartoongan @o/i4.safetensors: import c/foreign/cartoongan.pth o/i4.safetensors
import-again @o/i4.safetensors: import c/foreign/cartoongan.pth o/i4.safetensors
import-both @o/i5.safetensors: import c/inputs/pth/both.pth o/i5.safetensors
import-ckpt @o/i6.safetensors: import c/inputs/pth/ckpt_net_G.pth o/i6.safetensors
import-compiled @o/i7.safetensors: import c/inputs/pth/compiled_net_G.pth o/i7.safetensors
translate-imported: translate o/i1.safetensors c/few --output {o} --device cpu --precision float32
translate-imported-cartoongan: translate o/i4.safetensors c/few --output {o} --device cpu --precision float32
import-another: import c/foreign/another.pth {o}.safetensors
import-nested: import c/foreign/nested.pth {o}.safetensors
import-nan: import c/foreign/nan.pth {o}.safetensors
import-list: import c/foreign/list.pth {o}.safetensors
import-sparse: import c/foreign/sparse.pth {o}.safetensors
import-code: import c/foreign/code.pth {o}.safetensors
import-cut: import c/foreign/cut.pth {o}.safetensors
import-none: import c/foreign/none.pth {o}.safetensors
import-folder: import c/foreign {o}.safetensors
import-kind: import c/foreign/cartoongan.pth {o}.pth
import-direction: import c/foreign/cartoongan.pth {o}.safetensors --direction a2b
import-crop: import c/foreign/cartoongan.pth {o}.safetensors --crop-size 300
import-load: import c/foreign/cartoongan.pth {o}.safetensors --load-size 0
import-nowhere: import c/foreign/cartoongan.pth c/few/alpha.png/x.safetensors

# Evaluating
evaluate-run @c/models/cyclegan: evaluate c/models/cyclegan --json o/v1.json
evaluate-run-json @o/v1.json: methods
evaluate-file: evaluate c/models/cyclegan/generator_ba.safetensors --data c/demo --precision float32 --json {o}.json
evaluate-cartoongan @c/models/cartoongan: evaluate c/models/cartoongan
evaluate-checkpoint @o/v2.json: evaluate c/models/cyclegan/checkpoints/best.pt --json o/v2.json
evaluate-no-best @c/models/no_best: evaluate c/models/no_best
evaluate-direction: evaluate c/models/cyclegan --direction ab --protocol legacy --json -
evaluate-data @o/v3.json: evaluate c/models/cyclegan --data c/noise --json o/v3.json
evaluate-folders @o/v4.json: evaluate --pictures c/five --reference c/other --json o/v4.json
evaluate-folders-legacy @o/v5.json: evaluate --pictures c/five --reference c/other --json o/v5.json --protocol legacy
evaluate-folders-out: evaluate --pictures c/whole --reference c/demo/trainA --json -
evaluate-made-here @o/v6.json: evaluate o/train-cyclegan --data c/demo --json o/v6.json
evaluate-inception +weights @o/v7.json: evaluate --pictures c/five --reference c/other --json o/v7.json --features inception-64
evaluate-inception-192 +weights @o/v8.json: evaluate c/models/cyclegan --json o/v8.json --features inception-192 --data c/demo
evaluate-auto +weights @o/v9.json: evaluate c/models/cyclegan --json o/v9.json --direction ab
evaluate-inception-full +weights: $FOLDERS --features inception
evaluate-nothing: evaluate --json {o}.json
evaluate-no-reference: evaluate --pictures c/five --json {o}.json
evaluate-no-run: evaluate no_such_run --json {o}.json
evaluate-no-folder: evaluate --pictures c/none --reference c/five --json {o}.json
evaluate-empty: evaluate --pictures c/empty --reference c/five --json {o}.json
evaluate-one: evaluate --pictures c/one --reference c/five --json {o}.json
evaluate-nan: evaluate --pictures c/nan --reference c/five --json {o}.json
evaluate-broken: evaluate --pictures c/five --reference c/some --json {o}.json
evaluate-folders-data: $FOLDERS --data c/five
evaluate-features: $FOLDERS --features vgg
evaluate-no-weights: $FOLDERS --features inception
evaluate-missing-weights: $FOLDERS --features inception --weights x.pth
evaluate-device: $FOLDERS --device tpu
evaluate-protocol: $FOLDERS --protocol other
evaluate-json-folder: evaluate --pictures c/five --reference c/other --json c/five
evaluate-json-nowhere: evaluate --pictures c/five --reference c/other --json c/no/x.json
evaluate-other-direction: evaluate c/models/cyclegan/generator.safetensors --data c/demo --direction ba
evaluate-file-alone: evaluate c/models/strong.safetensors
evaluate-abc: evaluate c/models/cyclegan --direction abc
evaluate-untrained: evaluate c/models/cyclegan --data c/untrained
evaluate-no-testb: evaluate c/models/cyclegan --data c/links/trainA

# Curves
curves @c/models/cyclegan: curves c/models/cyclegan
curves-0 @c/models/curves0: curves c/models/curves0
curves-1 @c/models/curves1: curves c/models/curves1
curves-2 @c/models/curves2: curves c/models/curves2
curves-several @o/k: curves c/models/cyclegan o/train-cartoongan --out o/k/curves.png
curves-none: curves c/models/none
curves-no-run: curves c/five
curves-no-metrics: curves c/models/no_metrics
curves-kind: curves c/models/cyclegan --out {o}.doc

# Data
check-noise @o/d1.json: data check c/noise --crop-size 32 --json o/d1.json
check-demo @o/d2.json: data check c/demo --crop-size 32 --json o/d2.json
check-leaky @o/d3.json: data check c/leaky --crop-size 32 --json o/d3.json
check-damaged @o/d4.json: data check c/damaged --crop-size 32 --json o/d4.json
check-small @o/d5.json: data check c/small --crop-size 32 --json o/d5.json
check-same @o/d6.json: data check c/same --crop-size 32 --json o/d6.json
check-mixed @o/d7.json: data check c/mixed --crop-size 32 --json o/d7.json
check-links @o/d8.json: data check c/links --crop-size 32 --json o/d8.json
check-unsplit @o/d9.json: data check c/unsplit --crop-size 32 --json o/d9.json
check-awkward @o/d10.json: data check c/awkward --crop-size 8 --json o/d10.json
check-whole @o/d11.json: data check c/whole --json o/d11.json
check-inputs @o/d12.json: data check c/inputs --json o/d12.json
check-labels @o/d13.json: data check c/inputs/labels_gray_folder --json o/d13.json
check-out: data check c/noise --json -
check-nothing: data check
check-both: data check c/noise --domain x
check-none: data check c/none
check-file: data check c/few/alpha.png
check-empty: data check c/empty
check-json: data check c/noise --json c/no/x.json
check-domain: data check --domain nothing
check-one-domain: data check c/untrained
check-crop: data check c/noise --crop-size 0
demo: data demo {o} --size 40 --count 5 --seed 3
demo-large: data demo {o} --size 96 --count 1
demo-full @c/one: data demo c/one
demo-nowhere: data demo
demo-domain: data demo --domain zebras
demo-size: data demo {o} --size 0
demo-seed: data demo {o} --seed -1
frames: data frames c/videos/scenes.mp4 {o} --size 64
frames-often: data frames c/videos/scenes.mp4 {o} --every 1s
frames-again @o/frames: data frames c/videos/scenes.mp4 o/frames
frames-short: data frames c/videos/clip.mp4 {o}
frames-broken: data frames c/videos/broken.mkv {o}
frames-anim: data frames c/inputs/anim.gif {o}
frames-hdr: data frames c/inputs/hdr_white203.mp4 {o}
frames-sar: data frames c/inputs/sar.mp4 {o}
frames-none: data frames c/videos/none.mp4 {o}
frames-text: data frames c/videos/text.mp4 {o}
frames-every: data frames c/videos/clip.mp4 {o} --every 2x
frames-file: data frames c/videos/clip.mp4 c/few/alpha.png
smooth: data smooth c/demo/trainB {o} --size 24
smooth-few: data smooth c/few {o}
smooth-one: data smooth c/few/turned6.jpg {o}
smooth-some: data smooth c/some {o}
smooth-itself: data smooth c/one c/one
smooth-none: data smooth c/none {o}
get-list: data get
get-file @datasets/pets: data get c/archives/pets.tar.gz
get-file-again @datasets/pets: data get c/archives/pets.tar.gz
get-site: data get {site}/pets.zip?x=1 --into {o}
get-two: data get c/archives/two.zip --into {o}
get-inside: data get c/archives/inside.zip --into {o}
get-tests: data get c/archives/tests.zip --into {o}
get-three: data get c/archives/three.zip --into {o}
get-site-three @datasets: data get {site}/three.zip
get-sum: data get c/archives/pets.zip --into {o} --sha256 0000000000000000000000000000000000000000000000000000000000000000
get-size: data get c/archives/pets.zip --into {o} --max-size 0.5k
get-site-size: data get {site}/pets.zip --into {o} --max-size 1k
get-sum-short: data get {site}/pets.zip --sha256 123
get-missing: data get {site}/none.zip --into {o}
get-name: data get {site}
get-typo: data get horse2zebr
get-unknown: data get kittens
get-nothing: data get nothing.zip
get-folder: data get .
get-scheme: data get ftp://example.org/x.zip
get-address: data get http:///x.zip
get-bad-address: data get http://[::1/x.zip
get-into-full: data get c/archives/pets.zip --into c/one
get-into-file: data get c/archives/pets.zip --into c/few/alpha.png
get-into-below: data get c/archives/pets.zip --into c/few/alpha.png/below
$HOSTILE

# Refusals
no-command:
unknown-command: paint
unknown-option: train --colour
train-nothing: train
train-no-file: train nothing.yaml
train-broken-file: train c/settings/broken.yaml
train-unknown-in-file: train c/settings/unknown.yaml device=cpu
train-both-in-file: train c/settings/both.yaml
train-list-file: train c/settings/list.yaml
train-on-cpu-file: train c/settings/on_cpu.yaml device=cpu
train-nameless-file: train c/settings/nameless.yaml
train-folder-file: train c/settings
train-method: train --domain x --method cyclegam
train-domain-unknown: train --domain zebras
train-file-and-domain: train c/settings/default_cyclegan.yaml --domain x
r-section: $REFUSED trainin.steps=5
r-key: $REFUSED training.stepz=5
r-other-section: $REFUSED training.crop_size=5
r-steps-many: $REFUSED training.steps=many
r-steps-0: $REFUSED training.steps=0
r-steps-true: $REFUSED training.steps=true
r-steps-half: $REFUSED training.steps=5.5
r-rate: $REFUSED method.learning_rate=fast
r-adversarial: $REFUSED method.adversarial=wgan
r-upsampling: $REFUSED method.generator.upsampling=transpose
r-network: $REFUSED method.generator.name=unet
r-method: $REFUSED method.name=cyclegam
r-precision: $REFUSED precision=float16
r-device: $REFUSED device=gpu
r-device-99: $REFUSED device=cuda:99
r-crop-larger: $REFUSED data.crop_size=64
r-crop-odd: $REFUSED data.crop_size=31
r-crop-small: $REFUSED data.crop_size=8
r-deep: $REFUSED method.generator.downsamplings=5
r-seed: $REFUSED seed=99999999999999999999
r-augmentation: $REFUSED "data.augmentations=[{name: Blurr}]"
r-augmentation-argument: $REFUSED "data.augmentations=[{name: ColorJitter, colour: 1}]"
r-augmentation-size: $REFUSED "data.augmentations=[{name: Resize, height: 8, width: 8}]"
r-differentiable: $REFUSED method.differentiable_augmentation=[colours]
r-domain: $REFUSED data.domain=zebras
r-domain-name: $REFUSED data.domain=../x
r-word: $REFUSED seed
r-yaml: $REFUSED training.steps=[
r-twice: $REFUSED training=3 training.steps=4
r-init-none: $REFUSED training.init_from=nowhere
r-init-width: $REFUSED training.init_from=c/models/cyclegan method.generator.width=6
r-init-not: $REFUSED training.init_from=c/five
r-no-folder: $REFUSED data.a=c/none data.b=c/five
r-empty-folder: $REFUSED data.a=c/five data.b=c/empty
r-a-alone: $REFUSED data.a=c/five
r-test-alone: $REFUSED data.test_a=c/five
r-small: $REFUSED data.a=c/small/trainB data.b=c/five
r-broken: $REFUSED data.a=c/some data.b=c/five
r-broken-no-cache: $REFUSED data.a=c/some data.b=c/five data.cache=never
r-broken-test: $REFUSED $BOTH data.test_a=c/some data.test_b=c/five
r-demo-small: $REFUSED data.domain=demo data.load_size=64 data.crop_size=48
r-score: $REFUSED evaluation.score=ab/beauty
r-features: $REFUSED evaluation.features=inception
r-weights: $REFUSED evaluation.features=inception evaluation.weights=none.pth
r-timeout: $REFUSED data.timeout=-1
r-held-out: $REFUSED data.held_out=2
r-workers: $REFUSED data.workers=-1
r-batch: $REFUSED training.batch_size=0
r-ema: $REFUSED training.ema=1.5
r-steps-and-epochs: $REFUSED training.steps=3 training.epochs=3
r-compile: $REFUSED compile=maybe
r-cache: $REFUSED data.cache=c/few/alpha.png
r-out-full: train c/settings/default_cyclegan.yaml $TINY $LAYERS --out c/five
r-out-file: train c/settings/default_cyclegan.yaml $TINY $LAYERS training.steps=1 --out c/few/alpha.png
r-vgg: $CARTOON method.features.network=vgg19 method.features.weights=null
r-feature-layer: $CARTOON method.features.network=random method.features.layer=conv9_9
r-feature-file: $CARTOON method.features.network=random method.features.weights=c/foreign/cartoongan.pth
r-feature-other: $CARTOON method.features.network=squeezenet1_1 method.features.weights=c/foreign/cartoongan.pth
resume-none: train --resume c/none
resume-not: train --resume c/five
resume-domain: train --resume c/models/cyclegan --domain x
resume-weight: train --resume c/models/cyclegan method.cycle_weight=3
resume-several: train --resume c/models/cyclegan seed=1 data.flip=0
resume-shorter: train --resume c/models/cyclegan training.steps=3
resume-format: train --resume c/models/format7
resume-method: train --resume c/models/stargan
resume-cut: train --resume c/models/cut
resume-none-there: train --resume c/models/no_checkpoints
resume-no-data: train --resume c/models/no_data
resume-method-x: train --resume c/models/method_x
resume-incomplete: train --resume c/models/incomplete
resume-moved: train --resume c/models/bare data.root=c/none training.steps=8
resume-bare @c/models/bare: train --resume c/models/bare training.steps=8
t-no-run: translate c/none c/few --output {o}
t-no-input: $STRONG c/none
t-over: translate c/models/strong.safetensors c/few/alpha.png --output c/few/alpha.png
t-over-folder: translate c/models/strong.safetensors c/some --output c/some
t-over-resume: translate c/models/strong.safetensors c/some --output c/some --format webp --resume
t-folder-to-file: translate c/models/strong.safetensors c/few --output c/some/text.png
t-below-file: translate c/models/strong.safetensors c/few --output c/some/text.png/out
t-direction: $RUN c/few --direction xy
t-other-direction: $STRONG c/few --direction ba
t-fake: translate c/models/fake.safetensors c/few --output {o}
t-cut: translate c/models/cut.safetensors c/few --output {o}
t-other-pt: translate c/models/other.pt c/few --output {o}
t-pth: translate c/foreign/latest_net_G_A.pth c/few --output {o}
t-kind: translate c/few/alpha.png c/few --output {o}
t-not-a-run: translate c/five c/few --output {o}
t-format7: translate c/models/format7 c/few --output {o}
t-damaged: translate c/models/cut c/few --output {o}
t-no-data: translate c/models/no_data c/few --output {o}
t-method-x: translate c/models/method_x c/few --output {o}
t-size-x: translate c/models/size_x c/few --output {o}
t-no-translations: translate c/models/no_translations c/few --output {o}
t-wide: translate c/models/wide c/few --output {o}
t-other-name: translate c/models/other_name c/few --output {o}
t-not-finite: translate c/models/not_finite c/few --output {o}
t-no-checkpoints: translate c/models/no_checkpoints c/few --output {o}
t-suffix: $STRONG c/few --suffix a/b
t-gif: translate c/models/strong.safetensors c/few/alpha.png --output {o}.gif
t-file-and-format: translate c/models/strong.safetensors c/few/alpha.png --output {o}.png --format jpeg
t-empty: $STRONG c/empty
t-strength: $STRONG c/few --strength 1.5
t-strength-nan: $STRONG c/few --strength nan
t-scale: $STRONG c/few --scale 0
t-quality: $STRONG c/few --quality 101
t-format: $STRONG c/few --format gif
t-chroma: $STRONG c/few --chroma 4:1:1
t-colour: $STRONG c/few --preserve-color hue
t-memory: $STRONG c/few --memory much
t-memory-small: $STRONG c/inputs/photos --memory 1k
t-max-pixels: $STRONG c/few --max-pixels none
t-device: translate c/models/strong.safetensors c/few --output {o} --device gpu
t-scratch: $STRONG c/few --scratch c/none
t-no-output: translate c/models/strong.safetensors c/few
t-heic: $STRONG c/inputs/phone.heic
t-dng: $STRONG c/inputs/raw.dng
t-float: $STRONG c/inputs/float_rgb.tif
t-onnx-not: translate c/models/fake.onnx c/few --output {o}
f-format: $STRONG c/videos/clip.mp4 --output {o}.mp4 --format png
f-suffix: $STRONG c/videos/clip.mp4 --output {o}.mp4 --suffix x
f-chroma: $STRONG c/videos/clip.mp4 --output {o}.mp4 --chroma 4:4:4
f-quality-folder: $STRONG c/drawn --output {o}.mp4 --quality 9
f-every: $STRONG c/drawn --every 2
f-start: $STRONG c/drawn --start 1
f-window: $STRONG c/drawn --window 1
f-smooth-every: $STRONG c/drawn --smooth --every 2
f-smooth-one: $STRONG c/few/alpha.png --smooth
f-crf: $STRONG c/drawn --crf 18
f-fps: $STRONG c/drawn --fps 25
f-frames-crf: $STRONG c/drawn --frames --crf 18
f-frames-fps-film: $STRONG c/videos/clip.mp4 --fps 25
f-frames-of-film: $STRONG c/videos/clip.mp4 --output {o}.mp4 --frames
f-resume: $STRONG c/videos/clip.mp4 --resume
f-frames-resume: $STRONG c/drawn --frames --resume
f-text: $STRONG c/videos/text.mp4 --output {o}.mp4
f-none: $STRONG c/videos/none.mp4 --output {o}.mp4
f-kind: $STRONG c/videos/clip.mp4 --output {o}.xyz
f-pixels: $STRONG c/videos/clip.mp4 --output {o}.mp4 --max-pixels 3071
f-crf-60: $STRONG c/videos/clip.mp4 --output {o}.mp4 --crf 60
f-start-soon: $STRONG c/videos/clip.mp4 --start soon
f-start-late: $STRONG c/videos/clip.mp4 --start 1:00
f-end-before: $STRONG c/videos/clip.mp4 --start 1 --end 0.5
f-fps-0: $STRONG c/drawn --output {o}.mp4 --fps 0
f-over: translate c/models/strong.safetensors c/videos/clip.mp4 --output c/videos/clip.mp4
x-pt2-int8: $EXPORT --to pt2 --out {o}.pt2 --precision int8
x-safetensors-int8: $EXPORT --to safetensors --out {o}.safetensors --precision int8
x-suffix: $EXPORT --to pt2 --out {o}.pt
x-other-suffix: $EXPORT --to pt2 --out {o}.onnx
x-format: $EXPORT --to tflite --out {o}.tflite
x-nowhere: $EXPORT --to onnx --out c/none/x.onnx
x-calibrate: $EXPORT --to onnx --out {o}.onnx --calibrate c/five
x-calibrate-none: $EXPORT --to onnx --out {o}.onnx --precision int8 --calibrate c/none
x-calibrate-empty: $EXPORT --to onnx --out {o}.onnx --precision int8 --calibrate c/empty
x-direction: $EXPORT --to onnx --out {o}.onnx --direction ba
x-pixels: $EXPORT --to safetensors --out {o}.safetensors --pixels float
x-itself: $EXPORT --to safetensors --out c/models/strong.safetensors
x-none: export c/none --to onnx --out {o}.onnx
x-none-file: export c/none.safetensors --to onnx --out {o}.onnx
b-file: bench nowhere.yaml
b-setting: bench training.batch=2
b-method: bench method.name=cyclegam
b-crop: bench c/settings/default_cyclegan.yaml data.load_size=33 data.crop_size=33
b-json: bench --json missing/bench.json
b-json-folder: bench --json c
b-device: bench --device gpu
b-rounds: bench --rounds 0
a-none: app c/none
a-nothing: app c/five
a-port: app c/models/strong.safetensors --port 99999
a-host: app c/models/strong.safetensors --host 203.0.113.9 --port 0
a-upload: app c/models/strong.safetensors --max-upload 0
"""


def _hostile():
    """Archives that must be refused whole; what is no archive is in the list above."""
    names = """zip-up.zip zip-absolute.zip zip-drive.zip zip-backslash.zip zip-newline.zip zip-long.zip zip-deep.zip
    zip-under-a-file.zip zip-twice.zip zip-link.zip zip-pipe.zip zip-through-link.zip zip-encrypted.zip
    zip-unknown-method.zip zip-two-names.zip zip-size-too-small.zip zip-size-too-large.zip zip-wrong-sum.zip
    zip-bad-data.zip zip-overlap.zip zip-bz2.zip zip-lzma.zip zip-directory-size.zip tar-up.tar tar-link-out.tar
    tar-hard-link-up.tar tar-pipe.tar tar-device.tar tar-through-link.tar.gz tar-digits.tar.gz tar-negative-size.tar
    tar-huge-size.tar tar-sparse.tar tar-path-up.tar tar-bad-sum.tar tar-bad-middle.tar empty.zip empty-inside.zip
    page.zip noise.zip picture.zip gzip-of-zip.tar.gz zip-in-zip.zip no-pictures.zip cut-50.zip cut-50.tar
    cut-50.tar.gz cut-50.tar.xz""".split()
    return "\n".join(f"h-{name}: data get c/archives/{name} --into {{o}}" for name in names)


def _cases():
    text = _CASES.replace("$STRONG1", _SHORT["$STRONG"].replace(" --output {o}", "")).replace("$HOSTILE", _hostile())
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, options, command = re.fullmatch(r"(\S+?)((?: [-+@]\S+?)*):(?: (.*))?", line).groups()
        command = command or ""
        while "$" in command:
            for short, long in _SHORT.items():
                command = command.replace(short, long)
        if command.count("--output") > 1:
            command = command.replace(" --output {o} ", " ", 1)
        told = {}
        for option in options.split():
            if option[0] == "@":
                told["of"] = option[1:]
            else:
                told["weights"] = "needed" if option[0] == "+" else "where there are some"
        found.append((name, told, command))
    assert len({name for name, *_ in found}) == len(found)
    return found


CASES = _cases()
