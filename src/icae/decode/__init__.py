"""Runtimes: what runs the frozen decoder. Import the one you need from its module."""
