"""Headers of the frames of MP3 and MP2 files (ISO/IEC 11172-3 and 13818-3)."""

import functools
import itertools

HEADER_BYTES, CRC_BYTES, SIDE_BYTES = 4, 2, 32
LAYER_3, LAYER_2 = 0b01, 0b10
# The second byte of a header: 111, the version in two bits, the layer in two bits, and 1 if no CRC follows.
KINDS = {
    0b111_00_00_0 | version_bits << 3 | layer_bits << 1 | is_bare
    for version_bits, layer_bits, is_bare in itertools.product((0, 2, 3), (LAYER_3, LAYER_2), (0, 1))
}
MPEG_1 = 3
RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), MPEG_1: (44_100, 48_000, 32_000)}
KBPS_OF_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBPS_OF_1_LAYER_2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
KBPS_OF_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
IS_MONO = 0b11


def version(kind: int) -> int:
    """Return the bits of a header's second byte that tell the MPEG version."""
    return kind >> 3 & 0b11


def layer(kind: int) -> int:
    """Return the bits of a header's second byte that tell the layer."""
    return kind >> 1 & 0b11


@functools.cache
def frame_lengths(kind: int) -> list[int]:
    """Return the bytes of a frame for each third byte of its header, after the second byte `kind`; 0 if not valid."""
    is_first_version, is_layer_3 = version(kind) == MPEG_1, layer(kind) == LAYER_3
    bit_rates = KBPS_OF_2 if not is_first_version else KBPS_OF_1 if is_layer_3 else KBPS_OF_1_LAYER_2
    bytes_of_kbps = 72_000 if is_layer_3 and not is_first_version else 144_000
    lengths = [0] * 256
    rates = RATES[version(kind)]
    for (rate_code, rate), (kbps_code, kbps) in itertools.product(enumerate(rates), enumerate(bit_rates, 1)):
        for is_padded, is_private in itertools.product((0, 1), repeat=2):
            third = kbps_code << 4 | rate_code << 2 | is_padded << 1 | is_private
            lengths[third] = bytes_of_kbps * kbps // rate + is_padded
    return lengths
