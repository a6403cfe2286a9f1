#!/usr/bin/env bash
# Warns when memory runs short.
set -u
LIMIT=${MEMORY_LIMIT:-10} # percent that must be available
WELL="More than $LIMIT % of the memory is available again."
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

text=$(awk -v limit="$LIMIT" '
	/^MemTotal:/ { total = $2 }
	/^MemAvailable:/ { free = $2 }
	/^SwapTotal:/ { swap = $2 }
	/^SwapFree:/ { left = $2 }
	END {
		if (total == 0) exit 1
		if (100 * free / total < limit)
			printf "only %d MiB of %d MiB of memory are available; swap: %d of %d MiB used", free / 1024, total / 1024, (swap - left) / 1024, swap / 1024
	}' /proc/meminfo) || exit 1
[ -z "$text" ] || text="$text
$(ps -eo rss=,comm= --sort=-rss 2>/dev/null | awk 'NR <= 3 { printf "%d MiB %s\n", $1 / 1024, $2 }')"
report "${text:+⚠️ $(uname -n): $text}"
