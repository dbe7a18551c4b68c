# Read by every login on a node (see setup_commands of the cluster files): the environment that a sweep runs in.
[ -f ~/signsym-venv/bin/activate ] && source ~/signsym-venv/bin/activate
export RAY_AUTH_MODE=token
# Where results and data are, for every node alike: change both. A bucket's credentials come from the nodes' own role or
# from the environment, never from this file.
export SIGNSYM_STORAGE="${SIGNSYM_STORAGE:-CHANGE-ME}"
export SIGNSYM_DATA_ROOT="${SIGNSYM_DATA_ROOT:-$HOME/data}"
