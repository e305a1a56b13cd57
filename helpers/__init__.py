"""What the notebooks share, one job a file; README has the map. Here: what holds for the whole process."""

import contextlib
import ctypes
import warnings

# tqdm, which captum and cleanlab import, asks for a widget library that nothing here needs.
warnings.filterwarnings("ignore", message="IProgress not found")

# glibc, the C library of most Linux systems, hands freed memory back at once, and the next step asks for it again: a
# third of the time of inference went into fresh pages. Now it keeps all that was freed, in pieces of up to 32 MiB.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems do without
    ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**25)
