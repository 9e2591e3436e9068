"""The formats of photos that are read, by the suffix of a file or its first bytes."""

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
HEAD = 16  # bytes of a file that `suffix` wants
_SIGNATURES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF87a": ".gif",
    b"GIF89a": ".gif",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"II+\x00": ".tif",  # BigTIFF
    b"MM\x00+": ".tif",
    b"\x00\x00\x00\x0cjP  ": ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",  # a bare codestream
}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def suffix(head: bytes) -> str:
    """The suffix of the photo format that bytes, 8 or more, begin like; "" for none that is known.

    Args:
        head: the first `HEAD` bytes; of fewer, formats that say more later are believed.
    """
    if head[:2] == b"BM" and len(head) > 7 and not head[6:10].strip(b"\x00"):  # BMW is a label
        return ".bmp"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b""):
        return ".webp"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return ".avif"
        return ".heic" if brand in (*_HEIF_BRANDS, b"") else ""
    return next((known for begin, known in _SIGNATURES.items() if head.startswith(begin)), "")
