"""The main job: the driver's loop, the order of writes, recovery after a crash, confirmation, sync."""
