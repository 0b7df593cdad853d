# Sets `python` to a Python 3.11 or newer. Read by the scripts of this folder.

unset PYTHONHOME PYTHONPATH

python=
for candidate in python3.11 python3; do
    # Asks each one, because a version manager's python3.11 may be there and refuse to run.
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed and was not found. On Debian: apt-get install python3" >&2
    exit 69
fi
