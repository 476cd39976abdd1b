"""Find the undamaged blocks of a Matroska or WebM file (RFC 9559).

Each block is an element with its size, in a cluster, which is an element with a size as well. FFmpeg continues behind
damage only at the next cluster, which is up to ten seconds later.
"""

import collections
import itertools
import mmap
import re
from collections.abc import Iterator

from musictag.audio.chunks import EBML_ID, SEGMENT, SEGMENT_ID, Chunk, matroska_element, matroska_elements
from musictag.audio.parts import ByteSpan, merged_spans

_CLUSTER = b"\x1f\x43\xb6\x75"
# Info, and Tracks, without which nothing can be decoded.
_HEADERS = (b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b")
# SeekHead, Cues, Attachments, Chapters, Tags.
_OTHER_TOP_LEVEL = (
    b"\x11\x4d\x9b\x74",
    b"\x1c\x53\xbb\x6b",
    b"\x19\x41\xa4\x69",
    b"\x10\x43\xa7\x70",
    b"\x12\x54\xc3\x67",
)
_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = b"\xe7", b"\xa3", b"\xa0", b"\xa1"
# Void, CRC-32, Position, PrevSize, SilentTracks.
_OTHER_IN_CLUSTER = (b"\xec", b"\xbf", b"\xa7", b"\xab", b"\x58\x54")
_IN_CLUSTER = (_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, *_OTHER_IN_CLUSTER)
_BLOCKS = (_SIMPLE_BLOCK, _BLOCK_GROUP)
_KNOWN = frozenset((_CLUSTER, *_HEADERS, *_OTHER_TOP_LEVEL, *_IN_CLUSTER))
# Elements before damage that may be wrong as well.
_N_DOUBTFUL = 2
# How many elements follow each other where the file is undamaged again.
_N_CONSECUTIVE = 6
_RESUMPTION = re.compile(b"[\xa0\xa3]|" + b"|".join(map(re.escape, (_CLUSTER, *_HEADERS))))
# First bytes of the blocks of tracks 1 to 16.
_TRACKS = range(0x81, 0x91)
# The size of a segment or cluster that ends where the next one begins.
_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7


def undamaged(data: mmap.mmap) -> tuple[ByteSpan | bytes, ...] | None:
    """Return a file of the undamaged blocks of a Matroska or WebM file, whose bytes are `data`; None if it is neither.

    Segment and clusters get no size, so that each ends where the next one begins.
    """
    segment = _segment(data)
    if segment is None:
        return None
    headers: list[Chunk] = []
    clusters: list[list[list[Chunk]]] = []  # the elements in each cluster, in runs that nothing interrupts
    n_shifted = 0  # bytes that were inserted into clusters, less those that are missing
    cluster_end: int | None = None  # where the last cluster ends by its size, until an element begins there
    for element, follows in _elements(data, segment.content):
        is_in_cluster = element.name in _IN_CLUSTER
        if cluster_end is not None and (not is_in_cluster or element.begin == cluster_end):
            n_shifted += element.begin - cluster_end
            cluster_end = None
        if element.name == _CLUSTER:
            clusters.append([[]])
            cluster_end = element.end
        elif element.name in _HEADERS:
            headers.append(element)
        elif is_in_cluster and clusters:
            if not follows:
                clusters[-1].append([])
            clusters[-1][-1].append(element)
    if cluster_end is not None:
        n_shifted += len(data) - cluster_end
    # Blocks count from the time of their cluster. If the sizes do not add up, the header of a cluster may be missing.
    has_all_clusters = segment.end is not None and n_shifted == len(data) - segment.end
    spans: list[ByteSpan | bytes] = [(0, segment.begin), SEGMENT_ID + _UNKNOWN_SIZE]
    spans += [(element.begin, element.end) for element in headers if element.end is not None]
    for runs in clusters:
        if any(element.name == _TIMESTAMP for element in runs[0]):
            kept = itertools.chain.from_iterable(runs if has_all_clusters else runs[:1])
            spans += [_CLUSTER + _UNKNOWN_SIZE]
            spans += merged_spans((element.begin, element.end) for element in kept if element.end is not None)
    return tuple(spans)


def first_damage(data: mmap.mmap) -> int | None:
    """Return the first byte among the clusters at which an element should begin and none does, or None.

    A live stream, whose segment has no size, may end within an element. Damage of other elements costs no sound.
    """
    segment = _segment(data)
    if segment is None:
        return None
    position, cluster = segment.content, None
    while (position := _after_simple_blocks(data, position)) < (segment.end or len(data)):
        element = _known(data, position)
        if element is not None:
            cluster = element if element.name == _CLUSTER else cluster
            position = _next(element)
        elif cluster is None:
            position = _resumed(data, position + 1)
        elif data[position : position + 4] == EBML_ID:  # another file follows
            return None
        else:
            is_in_cluster = segment.end is not None and cluster.end is not None and position < cluster.end
            return position if is_in_cluster or _resumed(data, position + 1) < len(data) else None
    return None


def _after_simple_blocks(data: mmap.mmap, position: int) -> int:
    """Return the byte after the simple blocks that follow each other from a byte on.

    Nearly all elements are simple blocks with a size of one or two bytes: the general way takes a tenth of the time of
    decoding.
    """
    end = len(data) - 2
    while position < end and data[position] == _SIMPLE_BLOCK[0]:
        first = data[position + 1]
        if 0x80 <= first < 0xFF:
            after = position + 2 + (first & 0x7F)
        elif 0x40 <= first < 0x7F:
            after = position + 3 + ((first & 0x3F) << 8 | data[position + 2])
        else:
            break
        if after > len(data):
            break
        position = after
    return position


def _segment(data: mmap.mmap) -> Chunk | None:
    return next((element for element in matroska_elements(data) if element.name == SEGMENT), None)


def _elements(data: mmap.mmap, begin: int) -> Iterator[tuple[Chunk, bool]]:
    """Yield the elements of a segment and of its clusters that are complete, and whether each follows the one before.

    An element whose next one is damaged may have a wrong size: the last two before damage are left out, except for
    the header of a cluster and a timestamp that an element follows.
    """
    doubtful: collections.deque[tuple[Chunk, bool]] = collections.deque()
    position, follows = begin, False
    while position < len(data):
        element = _known(data, position)
        if element is None:
            position = _resumed(data, max(begin, doubtful[0][0].begin if doubtful else position) + 1)
            yield from (found for found in list(doubtful)[:-1] if found[0].name == _TIMESTAMP)
            doubtful.clear()
            follows = False
            continue
        if element.name == _CLUSTER:  # its size does not tell where the next element begins
            yield from doubtful
            doubtful.clear()
            yield element, follows
        else:
            doubtful.append((element, follows))
        if len(doubtful) > _N_DOUBTFUL:
            yield doubtful.popleft()
        position, follows = _next(element), True
    yield from doubtful


def _known(data: mmap.mmap, position: int) -> Chunk | None:
    """Return the element at a byte if the file holds all of it; of a cluster its header is enough. Else return None.

    Elements whose ID is not known are recognized by a block that follows, or by the end of the file.
    """
    element = matroska_element(data, position)
    if element is None or element.name == _CLUSTER:
        return element
    if element.end is None or element.end > len(data):
        return None
    is_known = element.name in _KNOWN or element.end == len(data) or data[element.end : element.end + 1] in _BLOCKS
    return element if is_known else None


def _next(element: Chunk) -> int:
    """Return where the element after this one begins; after the header of a cluster, this is the first one in it."""
    return element.content if element.name == _CLUSTER or element.end is None else element.end


def _resumed(data: mmap.mmap, begin: int) -> int:
    """Return the first byte from `begin` on from which several elements follow each other, or the end."""
    for match in _RESUMPTION.finditer(data, begin):
        position = match.start()
        is_begin = match.group() not in _BLOCKS or _is_block(data, position)
        if is_begin and _follow_each_other(data, position):
            return position
    return len(data)


def _follow_each_other(data: mmap.mmap, position: int) -> bool:
    """Return whether several elements follow each other from a byte on, or all until the end."""
    for _ in range(_N_CONSECUTIVE):
        element = _known(data, position)
        if element is None:
            return False
        position = _next(element)
        if position == len(data):
            break
    return True


def _is_block(data: mmap.mmap, begin: int) -> bool:
    """Return whether the element at a byte is a block of one of the first tracks, with flags that are allowed."""
    element = matroska_element(data, begin)
    if element is not None and element.name == _BLOCK_GROUP:
        element = matroska_element(data, element.content)
    if element is None or element.name not in (_SIMPLE_BLOCK, _BLOCK) or element.content + 4 > len(data):
        return False
    # The number of the track, two bytes of time, and flags, of which three bits are reserved.
    track, flags = data[element.content], data[element.content + 3]
    return track in _TRACKS and flags & 0x70 == 0
