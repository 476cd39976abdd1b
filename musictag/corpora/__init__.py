"""Catalogs to try musictag on: each module makes one."""
