/* What a custom operator needs of ONNX Runtime's C interface, so that building needs neither its headers nor
   its library.

   The runtime promises that functions keep their places in OrtApi, and members theirs in OrtCustomOp, in all
   later versions; so those that are not used here are gaps of a known size. */
#ifndef CYROIALIGN_ONNXRUNTIME_H
#define CYROIALIGN_ONNXRUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

typedef struct OrtStatus OrtStatus; /* an error; NULL is success */
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtCustomOp OrtCustomOp;

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };
enum { TENSOR_INT64 = 7 };
enum { API_VERSION = 17 }; /* the first with KernelContext_ParallelFor */

/* The comments number the functions. */
typedef struct OrtApi {
    OrtStatus *(*CreateStatus)(int code, const char *message); /* 0 */
    int (*GetErrorCode)(OrtStatus *status);
    const char *(*GetErrorMessage)(OrtStatus *status); /* 2 */
    void *gap_3[23];
    OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **domain); /* 26 */
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    void *gap_29[22];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **data); /* 51 */
    void *gap_52[8];
    OrtStatus *(*GetTensorElementType)(OrtTensorTypeAndShapeInfo *info, int *type); /* 60 */
    OrtStatus *(*GetDimensionsCount)(OrtTensorTypeAndShapeInfo *info, size_t *axes);
    OrtStatus *(*GetDimensions)(OrtTensorTypeAndShapeInfo *info, int64_t *shape, size_t axes);
    void *gap_63[2];
    OrtStatus *(*GetTensorTypeAndShape)(OrtValue *value, OrtTensorTypeAndShapeInfo **info); /* 65 */
    void *gap_66[19];
    OrtStatus *(*KernelInfoGetAttribute_float)(OrtKernelInfo *info, const char *name, float *value); /* 85 */
    OrtStatus *(*KernelInfoGetAttribute_int64)(OrtKernelInfo *info, const char *name, int64_t *value);
    OrtStatus *(*KernelInfoGetAttribute_string)(OrtKernelInfo *info, const char *name, char *text, size_t *size);
    void *gap_88[2];
    OrtStatus *(*KernelContext_GetInput)(OrtKernelContext *context, size_t index, OrtValue **value); /* 90 */
    OrtStatus *(*KernelContext_GetOutput)(
        OrtKernelContext *context, size_t index, int64_t *shape, size_t axes, OrtValue **value);
    void *gap_92[1];
    void (*ReleaseStatus)(OrtStatus *status); /* 93 */
    void *gap_94[5];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info); /* 99 */
    void *gap_100[174];
    OrtStatus *(*KernelContext_ParallelFor)( /* 274 */
        OrtKernelContext *context, void (*part)(void *, size_t), size_t parts, size_t batches, void *data);
} OrtApi;

typedef struct OrtApiBase {
    OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
    uint32_t version;
    void *CreateKernel; /* superseded by the one below */
    const char *(*GetName)(OrtCustomOp *op);
    const char *(*GetExecutionProviderType)(OrtCustomOp *op);
    int (*GetInputType)(OrtCustomOp *op, size_t index);
    size_t (*GetInputTypeCount)(OrtCustomOp *op);
    int (*GetOutputType)(OrtCustomOp *op, size_t index);
    size_t (*GetOutputTypeCount)(OrtCustomOp *op);
    void *KernelCompute; /* superseded likewise */
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(OrtCustomOp *op, size_t index);
    int (*GetOutputCharacteristic)(OrtCustomOp *op, size_t index);
    int (*GetInputMemoryType)(OrtCustomOp *op, size_t index);
    void *variadic[4];
    OrtStatus *(*CreateKernelV2)(OrtCustomOp *op, OrtApi *api, OrtKernelInfo *info, void **kernel);
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);
    void *not_used[7]; /* shapes before the run, versions, memory shared with inputs */
};

/* The operators that are RoIAlign, each once for each type of map, as an operator of ONNX Runtime has types of its
   own. Inputs are the map, boxes and, of the standard's, batch_indices. */
typedef struct Kind {
    const char *name;
    size_t inputs;
} Kind;

static const Kind kinds[] = {{"RoiAlign", 3}, {"MMCVRoiAlign", 2}, {"MMCVRoIAlignRotated", 2}};

typedef struct RoiAlign {
    OrtCustomOp op; /* first: the runtime hands out pointers to it */
    Kind kind;
    int type;
} RoiAlign;

static const char *name(OrtCustomOp *op) { return ((RoiAlign *)op)->kind.name; }
static const char *provider(OrtCustomOp *op) { (void)op; return NULL; } /* the CPU's */
static size_t inputs(OrtCustomOp *op) { return ((RoiAlign *)op)->kind.inputs; }
static size_t outputs(OrtCustomOp *op) { (void)op; return 1; }
static int usual(OrtCustomOp *op, size_t index) { (void)op; (void)index; return 0; } /* required, on the CPU */

static int type_of_tensor(OrtCustomOp *op, size_t index)
{
    return index == 2 ? TENSOR_INT64 : ((RoiAlign *)op)->type;
}

static void define(RoiAlign *operator, Kind kind, int type,
                   OrtStatus *(*create)(OrtCustomOp *, OrtApi *, OrtKernelInfo *, void **),
                   OrtStatus *(*compute)(void *, OrtKernelContext *), void (*destroy)(void *))
{
    operator->kind = kind;
    operator->type = type;
    operator->op = (OrtCustomOp){
        .version = API_VERSION,
        .GetName = name,
        .GetExecutionProviderType = provider,
        .GetInputType = type_of_tensor,
        .GetInputTypeCount = inputs,
        .GetOutputType = type_of_tensor,
        .GetOutputTypeCount = outputs,
        .GetInputCharacteristic = usual,
        .GetOutputCharacteristic = usual,
        .GetInputMemoryType = usual,
        .CreateKernelV2 = create,
        .KernelComputeV2 = compute,
        .KernelDestroy = destroy,
    };
}

#define KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))
#define TYPES 4
static RoiAlign operators[KINDS * TYPES];

/* What ONNX Runtime looks for in a library of operators. The domain is made once and, as sessions keep a
   pointer to it, never released. */
EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, OrtApiBase *base)
{
    static OrtCustomOpDomain *ready = NULL;
    OrtCustomOpDomain *domain = ready;
    OrtStatus *status = NULL;
    OrtApi *api = base->GetApi(API_VERSION);
    if (!api)
        return base->GetApi(1)->CreateStatus(ORT_FAIL, "cyroialign needs ONNX Runtime 1.17 or newer");
    if (!domain) {
        status = api->CreateCustomOpDomain("cyroialign", &domain);
        for (int i = 0; i < KINDS * TYPES && !status; i++)
            status = api->CustomOpDomain_Add(domain, &operators[i].op);
        if (status)
            return status;
        ready = domain;
    }
    return api->AddCustomOpDomain(options, domain);
}

#endif
