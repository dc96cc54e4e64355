"""How many rows of a Parquet file make a batch of bounded size."""

import pyarrow.parquet as pq

_MAX_ROWS = 16384
_BYTES = 16 << 20


def batch_rows_of(metadata: pq.FileMetaData) -> int:
    """At least one row, at most about 16 MiB; from the file alone, so that every pass cuts at the same rows."""
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    rows: int = metadata.num_rows * _BYTES // max(1, size)
    return max(1, min(_MAX_ROWS, rows))
