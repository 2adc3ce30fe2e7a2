"""What several rooms would otherwise write for themselves: files, folders, hashes, processes, words.

Imports no other room.
"""
