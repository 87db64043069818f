"""--log-json: a JSON object per line of the log, with the ids of what it is about.

time (UTC), level, logger, message; job, part and video where they are known; error and where it
was raised, if there was one.
"""

import json
import logging
from datetime import UTC, datetime

from pipeline.about import ids_now


class JsonLines(logging.Formatter):
    """Formats in the task or thread that logs, so that it knows what that is about."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **ids_now(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: whatever a file's name holds
