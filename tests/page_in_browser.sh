#!/usr/bin/env bash
# The page of `sinew plan --html` in a real browser: pictures are drawn, nothing is asked of the network, a phone
# shows all of it, by day and by night. Usage: page_in_browser.sh SINEW [FOLDER]; with FOLDER the pictures of the
# screen stay there. Exit code 77: no browser here.
set -euo pipefail
sinew=$1
browser=${SINEW_BROWSER:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$browser" ]; then
  echo "skipped: no browser (Debian: apt-get install chromium)"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
keep=${2:-$work}
mkdir -p "$keep"
"$sinew" plan --model deepseek-v3 --accelerator H800 --count 2048 --tokens 14.8e12 --batch 15360 --precision fp8 \
  --html "$work/page.html" >/dev/null

# The page with a look into it at its end, and a frame of a screen's width around that.
{
  cat "$work/page.html"
  cat <<'PROBE'
<script>
addEventListener('load', () => {
  const box = e => e.getBoundingClientRect(), all = s => [...document.querySelectorAll(s)];
  const pictures = all('svg');
  const marks = pictures.map(s => [...s.querySelectorAll('rect,path,line,polyline,circle,text')]
                                    .filter(m => box(m).width > 0 || box(m).height > 0).length);
  // What sticks out to the right and cannot be scrolled to within a box of its own.
  const inside = e => { for (; e; e = e.parentElement) if (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)) return true; return false; };
  const wide = all('body *').filter(e => box(e).right > innerWidth + 1 && !inside(e)).length;
  const letters = all('p,td,th,li,h1,h2').map(e => parseFloat(getComputedStyle(e).fontSize));
  const shade = getComputedStyle(document.body).backgroundColor;
  parent.postMessage('width=' + innerWidth + ' overflow=' + Math.max(0, document.documentElement.scrollWidth - innerWidth) +
    ' wide=' + wide + ' pictures=' + pictures.length +
    ' empty=' + pictures.filter((s, i) => box(s).width < 50 || box(s).height < 20 || marks[i] < 3).length +
    ' requests=' + performance.getEntriesByType('resource').length +
    ' smallest=' + Math.min(...letters) + ' background=' + shade.replace(/ /g, ''), '*');
});
</script>
PROBE
} >"$work/probed.html"

failed=0
look() {  # NAME WIDTH HEIGHT SCHEME(0 dark, 1 light)
  cat >"$work/$1.html" <<EOF2
<body style="margin:0"><iframe src="probed.html" style="border:0;width:$2px;height:$3px"></iframe><pre id="said">nothing</pre>
<script>addEventListener('message', e => document.getElementById('said').textContent = e.data)</script>
EOF2
  local options=(--headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile"
    --host-resolver-rules='MAP * ~NOTFOUND' --allow-file-access-from-files --virtual-time-budget=4000
    --blink-settings="preferredColorScheme=$4" --window-size="$(($2 > 500 ? $2 : 500)),$3")
  timeout 120 "$browser" "${options[@]}" --dump-dom "file://$work/$1.html" >"$work/$1.txt" 2>"$work/$1.err" || {
    cat "$work/$1.err"
    exit 1
  }
  timeout 120 "$browser" "${options[@]}" --screenshot="$keep/$1.png" "file://$work/$1.html" >/dev/null 2>&1
  said=$(sed -n 's/.*<pre id="said">\([^<]*\)<.*/\1/p' "$work/$1.txt")
  echo "$1: $said"
  local want
  for want in "width=$2 " "overflow=0 " "wide=0 " "empty=0 " "requests=0 "; do
    case "$said " in *"$want"*) ;; *) echo "$1: not $want"; failed=1 ;; esac
  done
  at_least() {  # KEY NUMBER
    if ! [[ $said =~ $1=([0-9]+) ]] || [ "${BASH_REMATCH[1]}" -lt "$2" ]; then
      echo "$3: $1 under $2"
      failed=1
    fi
  }
  at_least pictures 4 "$1"
  at_least smallest 11 "$1"
}
background() { sed -n 's/.*background=//p' <<<"$said"; }

look desktop-light 1200 3600 1
day=$(background)
look phone-light 390 6000 1
look phone-dark 390 6000 0
[ "$day" != "$(background)" ] || { echo "the night looks like the day: $day"; failed=1; }
exit $failed
