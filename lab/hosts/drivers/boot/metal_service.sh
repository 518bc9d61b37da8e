#!/bin/sh
# A service of dom0 on a real machine. Puts the card that the machine booted by into xenbr0, which has dom0's address,
# and fetches the media from the lab. /etc/lab/host.conf is read, never run.
export PATH=/usr/bin:/sbin:/usr/sbin
mac= gateway= media=
while IFS='=' read -r key value; do
  case $value in *[!A-Za-z0-9._:/-]* | '') continue ;; esac
  case $key in
    LAB_MAC) mac=$value ;;
    LAB_GATEWAY) gateway=$value ;;
    LAB_MEDIA) media=$value ;;
  esac
done </etc/lab/host.conf

card() {
  for folder in /sys/class/net/*; do
    [ -e "$folder/device" ] && [ "$(cat "$folder/address")" = "$mac" ] && echo "${folder##*/}" && return
  done
}
nic=$(card)
if [ -z "$nic" ]; then
  for module in e1000 e1000e igb; do modprobe "$module" 2>/dev/null; done
  tries=0
  until nic=$(card) && [ -n "$nic" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 50 ] || { echo "metal: there is no network card $mac that dom0 can drive"; exit 1; }
    sleep 0.1
  done
fi
ip addr flush dev "$nic" && ip route flush dev "$nic"
ip link set "$nic" master xenbr0 up || { echo "metal: $nic does not get into the bridge"; exit 1; }
[ -z "$gateway" ] || ip route replace default via "$gateway" || exit 1

[ -n "$media" ] || exit 0
tries=0
until wget -q -O /lab/scratch/media "$media"; do
  tries=$((tries + 1))
  [ "$tries" -le 20 ] || { echo "metal: the media cannot be fetched"; exit 1; }
  sleep 0.5
done
mount -t ext4 -o ro,noload,loop /lab/scratch/media /lab/media || { echo "metal: the media cannot be mounted"; exit 1; }
