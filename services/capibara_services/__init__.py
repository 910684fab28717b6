"""The capibara6 system's own services: backend, integrated server and frontend."""
