"""What a request shows: an upload, bytes inside the body, or what lies where the operator says."""

import asyncio
import base64
import binascii
from dataclasses import dataclass

from jobs.serve.conversation import Shown
from jobs.serve.refusals import Refusal
from jobs.serve.remote_media import RemoteMedia
from jobs.serve.stored_media import StoredMedia
from jobs.serve.uploads import INLINE, Incoming, Upload, Uploads
from pipeline.store.open import S3_SCHEME


@dataclass(frozen=True, slots=True)
class ShownVideos:
    """Wherever they come from, they are uploads in the end."""

    uploads: Uploads
    remote: RemoteMedia
    stored: StoredMedia

    async def upload_of(self, shown: Shown, *, owner: str) -> Upload:
        """The file it is. Refusal, or BadInput for what is no video."""
        uploads = self.uploads
        if shown.file_id is not None or shown.url.startswith("file-"):
            return uploads.get(shown.file_id or shown.url, owner=owner)
        file = uploads.incoming()
        try:
            await self._fetch(shown.url, file)
            return await uploads.keep(file, owner=owner, filename=shown.name, purpose=INLINE)
        finally:
            file.discard()

    async def _fetch(self, url: str, file: Incoming) -> None:
        if url.startswith("data:"):
            await file.write(await asyncio.to_thread(_decoded, url))
        elif url.startswith(S3_SCHEME):
            await self.stored.fetch(url, file)
        else:
            await self.remote.fetch(url, file)


def _decoded(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise Refusal(422, "invalid", "a data: url here ends its head with ;base64,", "url")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, "invalid", "a data: url that is not base64", "url") from None
