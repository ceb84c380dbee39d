"""What the host itself tells and hears: psutil, NVML, systemd notification, logging."""
