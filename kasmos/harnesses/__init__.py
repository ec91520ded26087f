"""What kasmos knows of agent programs: how to start them, what they say, and what it comes to.

Pure, but for the facts that ship beside the code. It starts nothing and reads nothing of anybody's.
"""
