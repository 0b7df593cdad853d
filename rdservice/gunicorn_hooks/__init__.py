"""The worker class and the logger class that gunicorn.conf.py names."""
