"""Everything about image and video files: the only folder that opens, decodes and writes those of users.

`arrays` holds ranges, resizing and tensors; `files` finds, checks, reads and writes 8-bit images, which training and
evaluation see (`read_image`, `find_images`); `photo` keeps alpha, 16 bits, EXIF and profiles, for what `translate`
returns (`read_photo`, `write_photo`); `colour` converts profiles and linear light; `finish` prepares photos and
completes their translations (`prepare`, `complete`); `video` reads frames (`Footage`, `FrameFolder`) and
`video_writer` writes them (`VideoWriter`).
"""
