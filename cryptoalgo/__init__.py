__version__ = "0.1.0"

from .core.compiled import use_kernel_cache

use_kernel_cache()  # before anything imports numba
