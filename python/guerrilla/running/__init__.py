"""A daemon that runs: started part by part, reloaded, watched, ended.

Layout:
    startup.py, checking.py   what is looked at before anything is opened
    opening.py, parts.py      what is opened, in order
    settings.py, addresses.py what the core is told
    reloading.py, staying.py  another config, part by part; status.py: what it tells of itself
    configwatch.py, tlswatch.py   files that change by themselves
    pidfile.py, privileges.py, systemd.py   its manners as a service
"""
