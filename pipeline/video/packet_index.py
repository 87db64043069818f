"""The list of a video's frames as its packets tell it, without decoding them."""

from array import array


class PacketIndex:
    """Stamps and key marks of displayed frames, and what they say about the stamps' worth."""

    def __init__(self, *, is_counted: bool) -> None:
        self.stamps = array("q")
        self.is_key = bytearray()
        self.has_gaps = False
        self.has_jumps = False
        self.is_counted = is_counted
        self.num_leading = 0  # dropped, because the keyframe they need is not in the file
        self.last_duration = 0
        self._has_key = False
        self._first_key: int | None = None
        self._last_key: int | None = None
        self._last_stamp: int | None = None
        self._num_keys = 0
        self._num_trailing_broken = 0

    def add(
        self, stamp: int | None, *, duration: int, is_key: bool, is_shown: bool, is_whole: bool
    ) -> None:
        """Take the next packet, in decoding order."""
        if is_key and not self._has_key:
            self._has_key = True
            self._first_key = stamp
            self.num_leading = len(self.stamps)
            del self.stamps[:], self.is_key[:]
        if not is_shown:  # cut away by an edit list: decoded for others' sake
            return
        self._num_trailing_broken = 0 if is_whole else self._num_trailing_broken + 1
        if stamp is None:
            self.has_gaps = True
            stamp = len(self.stamps)
        elif (
            not is_key
            and self._first_key is not None
            and stamp < self._first_key
            and self._num_keys < 2  # behind a second keyframe it is a time jump
        ):  # shown before the first keyframe, decoded after: it refers to what is not in the file
            self.num_leading += 1
            return
        if is_key:
            self._num_keys += 1
            # Each keyframe shows later than the one before; otherwise two clips were joined.
            if self._last_key is not None and stamp <= self._last_key:
                self.has_jumps = True
            self._last_key = stamp
        if self._last_stamp is None or stamp >= self._last_stamp:
            self._last_stamp, self.last_duration = stamp, duration
        self.stamps.append(stamp)
        self.is_key.append(is_key)

    def close(self) -> None:
        """Drop half packets at the end; number the frames if their stamps are worth nothing."""
        if self._num_trailing_broken:
            del self.stamps[-self._num_trailing_broken :], self.is_key[-self._num_trailing_broken :]
        self.is_counted |= self.has_gaps or self.has_jumps
        if self.is_counted:
            self.stamps = array("q", range(len(self.stamps)))
