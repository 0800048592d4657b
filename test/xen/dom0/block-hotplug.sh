#!/bin/sh
# Run by xl for a disk of a guest, with XENBUS_PATH naming the backend's directory: tells blkback
# which block device it is. The loop device exists already.
[ "$1" = add ] || exit 0
device=$(xenstore-read "$XENBUS_PATH/params")
xenstore-write "$XENBUS_PATH/physical-device" "$(stat -L -c %t:%T "$device")"
xenstore-write "$XENBUS_PATH/hotplug-status" connected
