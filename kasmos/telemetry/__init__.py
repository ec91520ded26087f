"""What a daemon shows of itself: its log, its metrics, its traces, and what it tells the service manager."""
