#!/bin/busybox sh
# First program of the Debian guest: brings its root file system, a vbd that the kernel's driver
# has, and hands over to systemd.
export PATH=/bin
busybox mkdir -p /proc /sys /dev /root
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for module in $(busybox cat /modules); do busybox insmod "/lib/$module"; done
until [ -b /dev/xvda ]; do busybox sleep 0.1; done
busybox mount -t ext4 /dev/xvda /root
# A disk that was not made by root belongs to whoever made it.
[ "$(busybox stat -c %u /root/usr)" = 0 ] || busybox chown -R 0:0 /root
busybox mount --move /dev /root/dev
busybox umount /proc /sys
exec busybox switch_root /root /sbin/init
