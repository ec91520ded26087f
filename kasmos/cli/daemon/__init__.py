"""`kas daemon`: the supervisor that stays."""
