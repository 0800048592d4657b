/*
 * Stands in for the hypervisor so that a real xenstored or oxenstored runs on any Linux, for
 * real-xenstored.ts. No domain but dom0 exists, and only the Unix socket works. With Debian's
 * packages xen-utils-4.17 and the libraries it needs unpacked (dpkg -x) into $ROOT:
 *
 *   gcc -w -shared -fPIC -o shim.so hypervisor-shim.c -ldl
 *   printf 1 > xsd_port; truncate -s 4096 xsd_kva; mkdir -p run lib
 *   LD_LIBRARY_PATH=$ROOT/usr/lib/x86_64-linux-gnu XENSTORED_RUNDIR=$PWD/run \
 *     XENSTORED_ROOTDIR=$PWD/lib XSD_FOLDER=$PWD LD_PRELOAD=$PWD/shim.so \
 *     $ROOT/usr/lib/xen-4.17/bin/xenstored -N -F $PWD/run/pid
 *   node build/test/xenstore-client/real-xenstored.js run/socket
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

static char handle[64];
static int event_fd = -1;

/* Event channels: the descriptor never becomes readable. */
void *xenevtchn_open(void *logger, unsigned flags)
{
	event_fd = eventfd(0, EFD_NONBLOCK);
	return handle;
}
void *xenevtchn_fdopen(void *logger, int fd, unsigned flags) { return xenevtchn_open(logger, flags); }
int xenevtchn_fd(void *xce) { return event_fd; }
int xenevtchn_bind_virq(void *xce, unsigned virq) { return 2; }
int xenevtchn_bind_interdomain(void *xce, uint32_t domid, uint32_t port) { return 3; }
int xenevtchn_notify(void *xce, uint32_t port) { return 0; }
int xenevtchn_pending(void *xce) { return -1; }
int xenevtchn_unbind(void *xce, uint32_t port) { return 0; }
int xenevtchn_unmask(void *xce, uint32_t port) { return 0; }

/* Grants: no other domain has a page to map. */
void *xengnttab_open(void *logger, unsigned flags) { return handle; }
int xengnttab_close(void *xgt) { return 0; }
int xengnttab_set_max_grants(void *xgt, uint32_t count) { return 0; }
void *xengnttab_map_grant_ref(void *xgt, uint32_t domid, uint32_t ref, int prot) { return 0; }
int xengnttab_unmap(void *xgt, void *address, uint32_t count) { return 0; }

/* Domains: dom0, and it is well. The first field of xc_dominfo_t is the domain id. */
void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags) { return handle; }
int xc_interface_close(void *xch) { return 0; }
int xc_domain_getinfo(void *xch, uint32_t first_domid, unsigned max, void *info)
{
	memset(info, 0, 64);
	*(uint32_t *)info = first_domid;
	return first_domid == 0;
}

/* oxenstored wants more descriptors than a container gives. */
int setrlimit(int resource, const void *limit) { return 0; }

/* The two files in which the kernel tells xenstored where dom0's ring is. */
static const char *redirect(const char *path, char *buffer, size_t size)
{
	const char *folder = getenv("XSD_FOLDER");
	const char *name = strstr(path, "/xen/xsd_");

	if (!folder || !name)
		return path;
	snprintf(buffer, size, "%s%s", folder, name + strlen("/xen"));
	return buffer;
}

#define REDIRECTED(function)                                                    \
	int function(const char *path, int flags, ...)                              \
	{                                                                           \
		static int (*real)(const char *, int, ...);                             \
		char buffer[4096];                                                      \
		va_list arguments;                                                      \
		int mode;                                                               \
                                                                                \
		va_start(arguments, flags);                                             \
		mode = va_arg(arguments, int);                                          \
		va_end(arguments);                                                      \
		if (!real)                                                              \
			real = dlsym(RTLD_NEXT, #function);                                 \
		return real(redirect(path, buffer, sizeof(buffer)), flags, mode);       \
	}
REDIRECTED(open)
REDIRECTED(open64)
