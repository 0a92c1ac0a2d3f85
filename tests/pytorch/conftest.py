"""These tests are collected where PyTorch is installed."""

import importlib.util

collect_ignore_glob = [] if all(map(importlib.util.find_spec, ("torch", "ml_dtypes"))) else ["*"]
