#!/bin/busybox sh
# PID 1 of the lab's dom0. Brings up Xen's services, runs what /lab-mode names, and leaves QEMU by
# its debug exit device with a code that nothing else produces:
#   value 16 -> QEMU exits with 33: the run was finished and all of it succeeded
#   value 17 -> QEMU exits with 35: the run was finished and something failed
# A crash, a panic, a power-off or a reboot ends QEMU with 0, which the lab takes as a failure.
export PATH=/usr/bin:/usr/sbin:/usr/lib/xen-4.17/bin:/usr/lib/busybox
export HOME=/root TERM=dumb

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts # without it xenconsoled fails
mount -t tmpfs -o size=80% tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up

cd /opt/xenblk-nbd || cd /
if grep -q lab.role=guest /proc/cmdline; then
  # The same file system serves a guest of dom0's, see guest-domain.ts.
  for module in xen-evtchn xen-gntalloc loop nbd ext4; do modprobe $module; done
  modprobe crc32c_generic
  node build/test/xen/guest/agent.js
  echo "init: the agent ended with $?"
  poweroff -f
fi

REPORT=/dev/ttyS1
stty -F $REPORT raw -echo
report() { echo "$1" >$REPORT; }
leave() {
  # The debug exit device listens at port 0xf4 = 244.
  printf "\\$1" | dd of=/dev/port bs=1 seek=244 2>/dev/null
  sleep 5
  poweroff -f
}

mode=$(cat /lab-mode)
claim_success() {
  report '{"event":"plan","names":["a lie"]}'
  report '{"event":"scenario-end","name":"a lie","ok":true,"durationMs":1}'
  report '{"event":"run-end","passed":1,"failed":0}'
}
case "$mode" in
  # The lab tests itself: each of these claims success and must not be believed.
  panic-after-success)
    claim_success
    echo c >/proc/sysrq-trigger
    ;;
  poweroff-after-success)
    claim_success
    poweroff -f
    ;;
  init-exits-after-success)
    claim_success
    exit 0
    ;;
  hang-after-success)
    claim_success
    sleep 1000
    ;;
esac

for module in xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs xen-blkback loop nbd ext4; do
  modprobe $module || echo "init: no module $module"
done
modprobe crc32c_generic
mount -t xenfs xenfs /proc/xen
xenstored --pid-file /run/xenstored.pid || echo "init: xenstored failed"
xen-init-dom0 || echo "init: xen-init-dom0 failed"
mkdir -p /run/xen
xenconsoled --log=guest --log-dir=/var/log/xen --pid-file=/run/xenconsoled.pid
read -r uptime _ </proc/uptime
report "{\"event\":\"dom0-up\",\"uptimeSeconds\":$uptime}"

if [ "$mode" = shell ]; then
  sh /lab-shell >$REPORT 2>&1
  leave 021
fi
if node build/test/xen/dom0/main.js; then leave 020; fi
dmesg | tail -n 20
leave 021
