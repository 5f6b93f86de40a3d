"""Where checkpoints of a job lie: a folder that every worker sees, or object storage.

Whatever file system pyarrow opens by a URI will do; Ray Train writes to it by the same call.
"""

from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from onepiece.errors import InvalidInput

_PROBE = ".onepiece-storage"
"""Written and deleted, to see that it can be."""


def read_storage(text: str) -> str:
    """Reads what was given on a command line: a folder becomes an absolute path."""
    return text if "://" in text else str(Path(text).resolve())


def check_storage(storage: str) -> None:
    """Makes the folder, or the prefix, and checks that it can be written.

    Raises:
        InvalidInput: No such kind of storage, a secret is in the URI, or it cannot be written.
    """
    if "@" in urlsplit(storage).netloc:
        # Not repeated: what stands before the @ is a secret.
        raise InvalidInput(
            "--storage has an @ before its path, as a URI with a secret has; give the URI without "
            "it, and the secret by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or GOOGLE_APPLICATION_CREDENTIALS)"
        )
    try:
        system, folder = fs.FileSystem.from_uri(storage)
        system.create_dir(folder)
        probe = f"{folder.rstrip('/')}/{_PROBE}"
        with system.open_output_stream(probe) as stream:
            stream.write(b"")
        system.delete_file(probe)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"--storage is {storage}, which nothing here opens ({error}); give a folder, "
            "s3://BUCKET/PATH, gs://BUCKET/PATH or file:///PATH"
        ) from error
    except OSError as error:
        raise InvalidInput(
            f"--storage {storage} cannot be written ({error}); make the bucket or the folder, and "
            "let this process write to it"
        ) from error
