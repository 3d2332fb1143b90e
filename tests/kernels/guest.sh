# SPDX-License-Identifier: Apache-2.0
# Process 1 of the virtual machine, in the host's root under a writable overlay.
# Run by busybox's shell, whose built-in mount and ln start in an instant, also when each process is emulated.
# guest.sh CHECKOUT RUN_DIR MODULES: runs RUN_DIR/command and leaves its exit status in RUN_DIR/status.
checkout=$1 run_dir=$2 modules=$3
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb

mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
ln -sfn /proc/self/fd /dev/fd
mount -t mqueue mqueue /dev/mqueue
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
# The checkout, or the cache of kernels, may lie below one of the directories that are about to be covered.
mkdir -p /mnt/checkout /mnt/modules
mount --bind "$checkout" /mnt/checkout
mount --bind "$modules" /mnt/modules
# These hold overlays, sockets or another machine's state, none of which may lie on the overlay itself.
for directory in /dev/shm /run /tmp /var/tmp /var/log /var/lib/containerd /var/lib/cni /var/lib/kubelet; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=1777 tmpfs "$directory"
done
for kept in checkout modules; do
    eval "place=\$$kept"
    mkdir -p "$place"
    mount --bind "/mnt/$kept" "$place"
done
chmod 755 /run /var/lib/containerd /var/lib/cni /var/lib/kubelet
mkdir -p /run/lock /run/netns

release=$(uname -r)
mkdir -p "/lib/modules/$release"
mount --bind "$modules" "/lib/modules/$release"
mount -t 9p -o rw,trans=virtio,version=9p2000.L,msize=512000,cache=none build "$checkout/build"
ip link set lo up
hostname bypath-vm
ulimit -n 65536

cd "$checkout" || echo "no directory $checkout"
read -r uptime _ < /proc/uptime
echo "$uptime" > "$run_dir/ready"
echo "bypath-vm: kernel $release is up after $uptime s"
/usr/bin/setsid -c -w /bin/sh "$run_dir/command" < /dev/ttyS0 > /dev/ttyS0 2>&1
echo $? > "$run_dir/status"
dmesg > "$run_dir/dmesg"
sync
echo o > /proc/sysrq-trigger
# Powering off takes a moment, in which a process 1 that ends would be a panic.
while :; do :; done
