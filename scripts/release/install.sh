#!/bin/sh
# Installs hermes @VERSION@ for the user who runs it, without root:
#   ~/.local/share/hermes/versions/@VERSION@/hermes   the program
#   ~/.local/share/hermes/current                     a link to that folder
#   ~/.local/bin/hermes                               a link to the program
# usage: sh install.sh [FOLDER or URL that holds the release]
#        (default: the folder of this script, else $HERMES_RELEASE_URL)
# What is fetched is held to SHA256SUMS, and those to their signature where
# minisign is installed. Running it twice changes nothing.
set -eu

version="@VERSION@"
public_key="@PUBLIC_KEY@"

fail() { echo "install.sh: $*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "this release is for Linux; here is $(uname -s)"
case "$(uname -m)" in
  x86_64 | amd64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) fail "there is no build for a processor of the kind $(uname -m); there is amd64 and arm64" ;;
esac
[ -n "${HOME:-}" ] || fail "HOME is not set, so it is unknown whose folder to install into"

source=${1:-}
if [ -z "$source" ]; then
  here=$(dirname "$0")
  if [ -f "$here/SHA256SUMS" ]; then source=$here; else source=${HERMES_RELEASE_URL:-}; fi
fi
[ -n "$source" ] || fail "where is the release? Give its folder or URL: sh install.sh URL"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fetch() { # NAME
  case "$source" in
    http://* | https://*)
      if command -v curl >/dev/null 2>&1; then curl -fsSL --retry 3 -o "$work/$1" "${source%/}/$1"
      elif command -v wget >/dev/null 2>&1; then wget -q -O "$work/$1" "${source%/}/$1"
      else fail "neither curl nor wget is installed, so nothing can be fetched"; fi ;;
    *) cp "$source/$1" "$work/$1" ;;
  esac
}

archive="hermes_${version}_linux_${arch}.tar.gz"
for name in SHA256SUMS SHA256SUMS.minisig "$archive"; do
  fetch "$name" || fail "$name could not be fetched from $source"
done

if command -v minisign >/dev/null 2>&1; then
  minisign -Vq -P "$public_key" -m "$work/SHA256SUMS" >/dev/null || fail "SHA256SUMS is not signed by the key of hermes; nothing was installed"
  echo "✓ signature"
else
  echo "- signature not checked: minisign is not installed"
fi
(cd "$work" && grep "  $archive\$" SHA256SUMS | sha256sum -c --status -) || fail "$archive is not what SHA256SUMS says; nothing was installed"
echo "✓ checksum"

base="$HOME/.local/share/hermes"
mkdir -p "$base/versions" "$HOME/.local/bin" "$work/x"
tar -xzf "$work/$archive" -C "$work/x"
"$work/x/hermes" --version >/dev/null || fail "the program does not run on this machine; nothing was installed"

# Into place in one step each, so that whoever starts hermes meanwhile finds the
# old one or the new one.
stage=$(mktemp -d "$base/versions/.stage-XXXXXX")
cp -R "$work/x/." "$stage/"
chmod 755 "$stage"
if [ -d "$base/versions/$version" ]; then
  mv -f "$stage/hermes" "$base/versions/$version/hermes"
  rm -rf "$stage"
else
  mv "$stage" "$base/versions/$version"
fi
link() { # TARGET LINK
  if [ -e "$2" ] && [ ! -L "$2" ]; then fail "$2 is there and no link, so it was left alone; move it away and run this again"; fi
  ln -s "$1" "$2.new.$$" && mv -fT "$2.new.$$" "$2"
}
link "versions/$version" "$base/current"
link "../share/hermes/current/hermes" "$HOME/.local/bin/hermes"
echo "✓ hermes $version is installed: $HOME/.local/bin/hermes"

case ":$PATH:" in
  *":$HOME/.local/bin:"*) ;;
  *) echo "  $HOME/.local/bin is not in your PATH; add it, or log in again" ;;
esac
if [ -S "$HOME/.hermes/gateway.sock" ]; then
  echo "  a gateway is running; hand it over to this version with: hermes gateway restart"
else
  echo "  go on with: hermes setup"
fi
