"""Shared by all routes: access checks, problem documents, request bodies, response headers, browser sessions, paths."""
