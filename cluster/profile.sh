# Read by every login on a node (see setup_commands of the cluster files): the environment that a sweep runs in.
[ -f ~/signsym-venv/bin/activate ] && source ~/signsym-venv/bin/activate
# SIGNSYM_STORAGE and SIGNSYM_DATA_ROOT, as the cluster file says. A bucket's credentials come from the nodes' own role
# or from the environment, never from a file here.
[ -f ~/signsym.env ] && source ~/signsym.env
# Where start.sh lets Ray keep its files.
export RAY_AUTH_MODE=token RAY_TMPDIR=/tmp/signsym-$(id -u)
