"""Tables and files of an index: nothing else reads or writes them."""

import importlib
import os

# For Delta's allocator, which reads it while it is loaded: one arena, and what is freed goes back to the system. By
# default it keeps what each commit took, more of it with every core.
_NAME, _SETTING = "_RJEM_MALLOC_CONF", "narenas:1,dirty_decay_ms:0,muzzy_decay_ms:0"

if _NAME not in os.environ:
    os.environ[_NAME] = _SETTING
    importlib.import_module("deltalake")
    del os.environ[_NAME]  # other libraries have an allocator that looks for it
