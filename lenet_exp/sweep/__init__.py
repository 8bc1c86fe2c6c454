"""The main job: the driver that asks and tells, the order of writes, recovery, confirmation, sync."""
