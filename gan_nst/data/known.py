"""The well-known data sets: where they lie, and what is known of them.

Addresses: the CycleGAN authors' server, its old place after it. Sizes and hashes: tensorflow/datasets,
url_checksums/cycle_gan.txt, which has no grumpifycat. What the pictures are: docs/datasets.md of
junyanz/pytorch-CycleGAN-and-pix2pix. `cityscapes` may not be passed on, and `ae_photos` has no training pictures.
"""

from dataclasses import dataclass

from gan_nst.core.errors import sized

_MIRRORS = (
    "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip",
    "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/{}.zip",
    "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip",
)


@dataclass(frozen=True)
class KnownSet:
    """A data set that can be asked for by its name.

    a, b: what the domains show. source: whose pictures they are. size: of the archive in bytes. sha256: of the archive.
    """

    name: str
    a: str
    b: str
    source: str
    size: int
    sha256: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the archive lies, in the order of trying; without a SHA-256 only where nobody can put in another."""
        proven = [mirror for mirror in _MIRRORS if self.sha256 or mirror.startswith("https:")]
        return tuple(mirror.format(self.name) for mirror in proven)


_SETS = (
    KnownSet(
        "apple2orange",
        "apples",
        "oranges",
        "ImageNet",
        78456409,
        "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
    ),
    KnownSet(
        "cezanne2photo",
        "paintings by Cézanne",
        "landscape photographs",
        "WikiArt and Flickr",
        279885071,
        "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
    ),
    KnownSet(
        "facades",
        "photographs of facades",
        "their labels",
        "the CMP Facade Database",
        35135868,
        "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0",
    ),
    KnownSet(
        "grumpifycat",
        "Russian Blue cats",
        "Grumpy Cat",
        "the authors of CUT",
        19 * 2**20,  # as the server's list rounds it
    ),
    KnownSet(
        "horse2zebra",
        "horses",
        "zebras",
        "ImageNet",
        116867962,
        "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
    ),
    KnownSet(
        "iphone2dslr_flower",
        "flowers by telephone",
        "flowers by reflex camera",
        "Flickr",
        339964458,
        "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
    ),
    KnownSet(
        "maps",
        "aerial photographs",
        "maps",
        "Google Maps",
        1476754427,
        "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e",
    ),
    KnownSet(
        "monet2photo",
        "paintings by Monet",
        "landscape photographs",
        "WikiArt and Flickr",
        305231073,
        "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
    ),
    KnownSet(
        "summer2winter_yosemite",
        "Yosemite in summer",
        "Yosemite in winter",
        "Flickr",
        132640856,
        "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    ),
    KnownSet(
        "ukiyoe2photo",
        "ukiyo-e prints",
        "landscape photographs",
        "WikiArt and Flickr",
        292946532,
        "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
    ),
    KnownSet(
        "vangogh2photo",
        "paintings by Van Gogh",
        "landscape photographs",
        "WikiArt and Flickr",
        306590349,
        "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
    ),
)

KNOWN = {known.name: known for known in _SETS}


def describe_known() -> str:
    """A line for each known set: its name, size, domains and where its pictures are from."""
    lines = [
        f"{known.name:24}{sized(known.size):>7}  {known.a} | {known.b} ({known.source})" for known in _SETS
    ]
    return "\n".join(
        [
            "Known data sets: gan-nst data get NAME (or the address or path of an archive)",
            "",
            *lines,
            "",
            "The terms of those whose pictures they are hold.",
        ]
    )
