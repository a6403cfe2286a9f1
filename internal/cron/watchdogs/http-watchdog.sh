#!/usr/bin/env bash
# Warns when a web address does not answer well.
set -u
URLS=${HTTP_URLS:-https://example.org/} # with spaces between
TRIES=${HTTP_TRIES:-2}
WELL="All of these answer again: $URLS"
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
for url in $URLS; do
	for try in $(seq "$TRIES"); do
		answer=$(curl -fsSL -o /dev/null -m 10 "$url" 2>&1) && break
		if [ "$try" = "$TRIES" ]; then text="$text
$url: $answer"; fi
	done
done
report "${text:+⚠️ does not answer:$text}"
