# Holds one box: its mounts live in this process's own mount namespace, and its
# machine is this process's child, so both are gone when standard input ends,
# however the test ended. Words on standard input: boot, off, cut.
set -u
dir=$1
mount -t tmpfs -o mode=755 box "$dir" &&
  mkdir "$dir/up" "$dir/work" "$dir/root" &&
  mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/up,workdir=$dir/work" "$dir/root" || exit 1
tr -d - </proc/sys/kernel/random/uuid >"$dir/root/etc/machine-id"
echo held

machine=
# The machine's PID 1 is the only child of systemd-nspawn.
leader() { cat "/proc/$machine/task/$machine/children" 2>/dev/null; }
end() {
  [ -n "$machine" ] || return 0
  # shellcheck disable=SC2046
  kill -s "$1" $(leader) 2>/dev/null
  n=0
  while kill -0 "$machine" 2>/dev/null && [ $n -lt 200 ]; do sleep 0.1; n=$((n + 1)); done
  kill -s KILL $(leader) "$machine" 2>/dev/null
  wait "$machine" 2>/dev/null
  machine=
}
while read -r word; do
  case $word in
  boot)
    systemd-nspawn -q -D "$dir/root" --machine="box$$" --register=no --keep-unit --boot \
      --private-network --console=pipe </dev/null >>"$dir/console.log" 2>&1 &
    machine=$!
    echo "$machine"
    ;;
  off) end RTMIN+4; echo off ;; # systemd(1): SIGRTMIN+4 powers off
  cut) end KILL; echo off ;;
  esac
done
end KILL
