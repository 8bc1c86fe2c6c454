"""What every wing stands on: errors and exit codes, whole files, random streams, paths, plain records."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    environment="CAUSES check_system version_of_code",
    errors="ConfigError DataError DeviceError DiskError DivergedError LenetExpError "
    "LockedError NoResultError PortError StoreError SweepInterruptedError "
    "UnreachableError mask_url printable shorten",
    files="check_database check_folder disk_error lock lock_holder make_folder move_aside "
    "open_file own_folder read_file sync_file writable_folder write_atomically "
    "write_new",
    layout="Layout artifacts folder_name layouts mlflow_db study_db",
    lineage="Lineage MARK check_lineage",
    messages="counted listen repair_command say step store_flags",
    records="EpochResult IMAGES_IN_WORDS METRICS Role RunKey State TrainOn without_seed",
    seeding="derive_seed",
)
