"""Is what workers leave behind what the log says, and what a replay of their topic does?"""
