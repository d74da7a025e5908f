"""How hard a host may be asked: slots and gaps (hosts), its own wishes (robots), its health (throttle)."""
