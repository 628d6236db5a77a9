"""What answers take a second to import beside torch: the plug-ins that recipes name."""

import vitarium.page.behavior  # noqa: F401
from vitarium.core.registry import plugins

for _kind in ("architecture", "dataset", "augmentation", "objective", "optimizer", "schedule"):
    plugins(_kind)
