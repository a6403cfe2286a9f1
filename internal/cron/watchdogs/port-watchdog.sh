#!/usr/bin/env bash
# Warns when nothing listens on a port.
set -u
PORTS=${PORTS:-127.0.0.1:22} # host:port, with spaces between
WELL="All of these take connections again: $PORTS"
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

text=""
for one in $PORTS; do
	host=${one%:*}
	port=${one##*:}
	timeout 5 bash -c 'exec 3<> "/dev/tcp/$0/$1"' "$host" "$port" 2> /dev/null || text="$text
$one"
done
report "${text:+⚠️ no connection to:$text}"
