// SPDX-License-Identifier: Apache-2.0
/*
 * The program behind `bypath` and every bypath-* executable: an interpreter that starts in a fraction of the usual
 * time.
 *
 * A runtime starts a plugin for every pod and waits for it, so the start is what the plugin costs. What is saved here,
 * with the share of each, is in packaging/README.md:
 *   - libpython is linked in statically and not position independent: no relocations, no search for libraries
 *   - the modules of the hot path are frozen in (freeze.py): an import is neither a stat nor a read
 *   - the interpreter starts only its core; encodings, the path importer and the standard streams follow with the first
 *     import that is not frozen in (boot.py), which is the cold path
 *   - no garbage collection: the process ends before it could pay
 */
#include <Python.h>
#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Written by freeze.py: every module of cni/, bpf/ and the plugins, and boot.py. */
extern const struct _frozen bypath_frozen[];

/* The two-phase start is provisional API, there from 3.8 to 3.13. Without it everything works and costs 2 ms more. */
#define TWO_PHASES (PY_VERSION_HEX < 0x030E0000)

static char executable[PATH_MAX];
static char internal[PATH_MAX + 16];

static void die(PyStatus status)
{
	if (PyStatus_Exception(status))
		Py_ExitStatusException(status);
}

/* Starts the rest of the interpreter. Returns whether this was the first call. */
static PyObject *finish(PyObject *self, PyObject *none)
{
	static int finished;

	(void)self;
	(void)none;
	if (finished)
		Py_RETURN_FALSE;
	finished = 1;
#if TWO_PHASES
	PyStatus status = _Py_InitializeMain();
	if (PyStatus_Exception(status)) {
		PyErr_SetString(PyExc_ImportError, status.err_msg);
		return NULL;
	}
#endif
	Py_RETURN_TRUE;
}

/* An extension's libraries lie under _internal, where the dynamic linker does not look; loaded before, they are found
 * by name. An RPATH would do the same and cost every start the search for libc in there. */
static PyObject *preload(PyObject *self, PyObject *name)
{
	char path[sizeof(internal) + 256];
	const char *text = PyUnicode_AsUTF8(name);

	(void)self;
	if (!text)
		return NULL;
	snprintf(path, sizeof(path), "%s/%s", internal, text);
	if (!dlopen(path, RTLD_LAZY)) {
		PyErr_SetString(PyExc_ImportError, dlerror());
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
	{"preload", preload, METH_O, NULL},
	{"finish", finish, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_launcher", NULL, -1, methods, NULL, NULL, NULL, NULL};

static PyObject *create_module(void)
{
	PyObject *module = PyModule_Create(&definition);

	if (module && (PyModule_AddStringConstant(module, "executable", executable) ||
		       PyModule_AddStringConstant(module, "internal", internal)))
		return NULL;
	return module;
}

/* Our directory is wherever the kernel started us from, symbolic links in /opt/cni/bin resolved. */
static void find_ourselves(void)
{
	ssize_t length = readlink("/proc/self/exe", executable, sizeof(executable) - 1);

	if (length <= 0) {
		perror("bypath: /proc/self/exe");
		_exit(1);
	}
	*strrchr(executable, '/') = '\0';
	snprintf(internal, sizeof(internal), "%s/_internal", executable);
	executable[strlen(executable)] = '/';
}

/* The classic mistake is a copy of the executable alone in /opt/cni/bin. Whoever runs us reads stdout only. */
static void refuse_to_run_alone(void)
{
	if (access(internal, X_OK) == 0)
		return;
	puts("{\"cniVersion\":\"1.0.0\",\"code\":199,\"msg\":\"the directory _internal is not beside this executable: "
	     "install both together, and link to the executable instead of copying it\"}");
	exit(1);
}

static void set(PyConfig *config, wchar_t **field, const char *text)
{
	die(PyConfig_SetBytesString(config, field, text));
}

static void search(PyConfig *config, const char *directory)
{
	wchar_t *entry = Py_DecodeLocale(directory, NULL);

	die(PyWideStringList_Append(&config->module_search_paths, entry));
	PyMem_RawFree(entry);
}

/* Naming every directory ourselves spares Python the search for its own installation. */
static void set_paths(PyConfig *config)
{
	char extensions[sizeof(internal) + 32];

	set(config, &config->program_name, executable);
	set(config, &config->executable, executable);
	set(config, &config->base_executable, executable);
	set(config, &config->home, internal);
	set(config, &config->prefix, internal);
	set(config, &config->base_prefix, internal);
	set(config, &config->exec_prefix, internal);
	set(config, &config->base_exec_prefix, internal);
	snprintf(extensions, sizeof(extensions), "%s/python%d.%d/lib-dynload", internal, PY_MAJOR_VERSION,
		 PY_MINOR_VERSION);
	config->module_search_paths_set = 1;
	search(config, internal);
	search(config, extensions);
}

static void start_python(int argc, char **argv)
{
	PyPreConfig before;
	PyConfig config;

	PyPreConfig_InitIsolatedConfig(&before);
	before.utf8_mode = 1;
	die(Py_PreInitialize(&before));
	PyImport_FrozenModules = bypath_frozen;
	PyImport_AppendInittab("_launcher", create_module);

	PyConfig_InitIsolatedConfig(&config);
	config.site_import = 0;
	config.write_bytecode = 0;
	config.optimization_level = 2;
	/* The same work every time, so that it can be counted. All keys come from the node's own configuration. */
	config.use_hash_seed = 1;
	config.hash_seed = 0;
	config.use_frozen_modules = 1;
#if TWO_PHASES
	config._init_main = 0;
#endif
	die(PyConfig_SetBytesArgv(&config, argc, argv));
	set_paths(&config);
	die(Py_InitializeFromConfig(&config));
	PyConfig_Clear(&config);
	PyGC_Disable();
}

int main(int argc, char **argv)
{
	/* As every Python does: a runtime that went away must be an error that is undone, not our death half way. */
	signal(SIGPIPE, SIG_IGN);
	find_ourselves();
	refuse_to_run_alone();
	start_python(argc, argv);
	if (PyImport_ImportFrozenModule("bypath_boot") > 0)
		return 0;
	PyObject *type, *value, *trace;
	PyErr_Fetch(&type, &value, &trace);
	finish(NULL, NULL);
	PyErr_Restore(type, value, trace);
	PyErr_Print();
	return 1;
}
