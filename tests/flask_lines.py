"""What Xen says when FLASK denies or allows something, from a real `xl dmesg`."""

SAVE_DENIED = (
    "(XEN) avc:  denied  { pageinfo } for source=d0 target=d6 scontext=system_u:system_r:dom0_t "
    "tcontext=system_u:system_r:lab_nomigrate_t tclass=mmu"
)
MAP_DENIED = (
    "(XEN) avc:  denied  { map_read map_write } for source=d1 target=d2 scontext=system_u:system_r:domU_t "
    "tcontext=system_u:system_r:isolated_domU_t tclass=grant"
)
LOADED = (
    "(XEN) avc:  granted  { load_policy } for current=d0 scontext=system_u:system_r:dom0_t "
    "tcontext=system_u:system_r:security_t tclass=security"
)
