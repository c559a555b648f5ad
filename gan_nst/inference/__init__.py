"""From a generator and images to translated images, without anything that training needs.

`translator` translates single images (`Translator`); `folder` a folder tree (`translate_folder`) into the
files that `outputs` plans; `video` a video (`translate_video`); `exported` writes and loads generators
(`export`, `load_exported`); `foreign` converts other projects' generators (`recognise`); `portable` holds
the formats of other programs.
"""
