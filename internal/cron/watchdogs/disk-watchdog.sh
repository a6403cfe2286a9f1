#!/usr/bin/env bash
# Warns when a file system fills up.
set -u
LIMIT=${DISK_LIMIT:-90} # percent used
WELL="All file systems are below $LIMIT % again."
REMIND=${REMIND:-360}
STATE="${STATE:-$0.state}"

# Speaks when the trouble begins, again every REMIND minutes while it lasts, and
# when it is over. What is printed is sent; nothing printed is silence.
report() {
	if [ -n "$1" ]; then
		if [ ! -e "$STATE" ] || [ -n "$(find "$STATE" -mmin +"$REMIND")" ]; then
			printf "%s\n" "$1"
			: > "$STATE"
		fi
	elif [ -e "$STATE" ]; then
		rm -f "$STATE"
		echo "✅ $WELL"
	fi
}

# Layers of containers are the disk below them once more; what cannot be looked
# at is left out by df, but if nothing can be, that is an error.
pick() {
	awk -v limit="$LIMIT" -v what="$1" '
		NR == 1 || $2 == "overlay" && $7 != "/" { next }
		{ used = $6; if (!sub("%", "", used) || used + 0 < limit) next
		  name = $7; for (i = 8; i <= NF; i++) name = name " " $i
		  if (what == "inodes") printf "%s has used %s of its inodes\n", name, $6
		  else printf "%s is %s full, %.1f GiB left\n", name, $6, $5 / 1048576 }
		END { exit NR < 2 }'
}
skip="-x tmpfs -x devtmpfs -x squashfs -x efivarfs"
full=$(df -PTk $skip 2> /dev/null | pick space) || { echo "df tells of no file system" >&2; exit 1; }
inodes=$(df -PTi $skip 2> /dev/null | pick inodes)
text=$(printf "%s\n%s" "$full" "$inodes" | sed '/^$/d')
report "${text:+⚠️ $(uname -n): $text}"
