/* The slice of ONNX Runtime's C ABI that the operators use.

   The runtime hands out a table of function pointers that only ever grows: a function's
   place in it holds for every release since the function came (OrtApi and OrtCustomOp
   in the runtime's onnxruntime_c_api.h). tests/test_ops_abi.py calls through every
   place in the oldest and in the newest supported runtime. Functions that return a
   status return NULL when all is well; otherwise the status is the caller's to release.
 */
#ifndef DIN_OPS_ORT_ABI_H_
#define DIN_OPS_ORT_ABI_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(_WIN64)
#define ORT_CALL __stdcall
#else
#define ORT_CALL
#endif

/* Of ONNX Runtime 1.20: the oldest that is supported. */
#define ORT_API_VERSION 20

enum { ORT_INVALID_ARGUMENT = 2 }; /* OrtErrorCode */
enum {
  ORT_UNDEFINED = 0,
  ORT_FLOAT = 1,
  ORT_UINT8 = 2,
  ORT_INT32 = 6,
  ORT_INT64 = 7,
  ORT_STRING = 8,
  ORT_FLOAT16 = 10,
  ORT_DOUBLE = 11
};
enum { ORT_VARIADIC = 2 }; /* OrtCustomOpInputOutputCharacteristic */

typedef struct OrtStatus OrtStatus;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtValue OrtValue;
typedef struct OrtTensorInfo OrtTensorInfo; /* OrtTensorTypeAndShapeInfo */
typedef struct OrtCustomOp OrtCustomOp;
typedef void (*OrtUnused)(void);

typedef struct OrtApi {
  OrtStatus *(ORT_CALL *CreateStatus)(int code, const char *message); /* 0 */
  OrtUnused unused_1[1];
  const char *(ORT_CALL *GetErrorMessage)(const OrtStatus *status); /* 2 */
  OrtUnused unused_3[23];
  OrtStatus *(ORT_CALL *CreateCustomOpDomain)(const char *name,
                                              OrtCustomOpDomain **out); /* 26 */
  OrtStatus *(ORT_CALL *CustomOpDomain_Add)(OrtCustomOpDomain *domain,
                                            const OrtCustomOp *op); /* 27 */
  OrtStatus *(ORT_CALL *AddCustomOpDomain)(OrtSessionOptions *options,
                                           OrtCustomOpDomain *domain); /* 28 */
  OrtUnused unused_29[22];
  OrtStatus *(ORT_CALL *GetTensorMutableData)(OrtValue *value, void **out); /* 51 */
  OrtUnused unused_52[1];
  OrtStatus *(ORT_CALL *GetStringTensorDataLength)(const OrtValue *value,
                                                   size_t *size); /* 53 */
  OrtStatus *(ORT_CALL *GetStringTensorContent)(const OrtValue *value, void *out,
                                                size_t size, size_t *offsets,
                                                size_t count); /* 54 */
  OrtUnused unused_55[5];
  OrtStatus *(ORT_CALL *GetTensorElementType)(const OrtTensorInfo *info,
                                              int *out); /* 60 */
  OrtStatus *(ORT_CALL *GetDimensionsCount)(const OrtTensorInfo *info,
                                            size_t *out); /* 61 */
  OrtStatus *(ORT_CALL *GetDimensions)(const OrtTensorInfo *info, int64_t *dims,
                                       size_t count); /* 62 */
  OrtUnused unused_63[2];
  OrtStatus *(ORT_CALL *GetTensorTypeAndShape)(const OrtValue *value,
                                               OrtTensorInfo **out); /* 65 */
  OrtUnused unused_66[19];
  OrtStatus *(ORT_CALL *KernelInfoGetAttribute_float)(const OrtKernelInfo *info,
                                                      const char *name,
                                                      float *out); /* 85 */
  OrtStatus *(ORT_CALL *KernelInfoGetAttribute_int64)(const OrtKernelInfo *info,
                                                      const char *name,
                                                      int64_t *out); /* 86 */
  OrtStatus *(ORT_CALL *KernelInfoGetAttribute_string)(const OrtKernelInfo *info,
                                                       const char *name, char *out,
                                                       size_t *size); /* 87 */
  OrtUnused unused_88[2];
  OrtStatus *(ORT_CALL *KernelContext_GetInput)(const OrtKernelContext *context,
                                                size_t index,
                                                const OrtValue **out); /* 90 */
  OrtStatus *(ORT_CALL *KernelContext_GetOutput)(OrtKernelContext *context,
                                                 size_t index, const int64_t *dims,
                                                 size_t count, OrtValue **out); /* 91 */
  OrtUnused unused_92[1];
  void(ORT_CALL *ReleaseStatus)(OrtStatus *status); /* 93 */
  OrtUnused unused_94[5];
  void(ORT_CALL *ReleaseTensorTypeAndShapeInfo)(OrtTensorInfo *info); /* 99 */
  OrtUnused unused_100[1];
  void(ORT_CALL *ReleaseCustomOpDomain)(OrtCustomOpDomain *domain); /* 101 */
  OrtUnused unused_102[61];
  OrtStatus *(ORT_CALL *KernelInfoGetAttributeArray_int64)(const OrtKernelInfo *info,
                                                           const char *name,
                                                           int64_t *out,
                                                           size_t *size); /* 163 */
  OrtUnused unused_164[29];
  OrtStatus *(ORT_CALL *KernelContext_GetGPUComputeStream)(
      const OrtKernelContext *context, void **out); /* 193 */
  OrtUnused unused_194[36];
  OrtStatus *(ORT_CALL *KernelInfo_GetInputCount)(const OrtKernelInfo *info,
                                                  size_t *out); /* 230 */
  OrtStatus *(ORT_CALL *KernelInfo_GetOutputCount)(const OrtKernelInfo *info,
                                                   size_t *out); /* 231 */
  OrtUnused unused_232[5];
  OrtStatus *(ORT_CALL *HasSessionConfigEntry)(const OrtSessionOptions *options,
                                               const char *key, int *out); /* 237 */
  OrtStatus *(ORT_CALL *GetSessionConfigEntry)(const OrtSessionOptions *options,
                                               const char *key, char *out,
                                               size_t *size); /* 238 */
  OrtUnused unused_239[10];
  OrtStatus *(ORT_CALL *KernelInfoGetConstantInput_tensor)(
      const OrtKernelInfo *info, size_t index, int *is_constant,
      const OrtValue **out); /* 249 */
  OrtUnused unused_250[24];
  OrtStatus *(ORT_CALL *KernelContext_ParallelFor)(
      const OrtKernelContext *context, void (*run)(void *data, size_t index),
      size_t total, size_t num_batches, void *data); /* 274 */
} OrtApi;

#define ORT_PLACE(name, place) \
  _Static_assert(offsetof(OrtApi, name) == (place) * sizeof(OrtUnused), #name)
ORT_PLACE(CreateStatus, 0);
ORT_PLACE(GetErrorMessage, 2);
ORT_PLACE(CreateCustomOpDomain, 26);
ORT_PLACE(CustomOpDomain_Add, 27);
ORT_PLACE(AddCustomOpDomain, 28);
ORT_PLACE(GetTensorMutableData, 51);
ORT_PLACE(GetStringTensorDataLength, 53);
ORT_PLACE(GetStringTensorContent, 54);
ORT_PLACE(GetTensorElementType, 60);
ORT_PLACE(GetDimensionsCount, 61);
ORT_PLACE(GetDimensions, 62);
ORT_PLACE(GetTensorTypeAndShape, 65);
ORT_PLACE(KernelInfoGetAttribute_float, 85);
ORT_PLACE(KernelInfoGetAttribute_int64, 86);
ORT_PLACE(KernelInfoGetAttribute_string, 87);
ORT_PLACE(KernelContext_GetInput, 90);
ORT_PLACE(KernelContext_GetOutput, 91);
ORT_PLACE(ReleaseStatus, 93);
ORT_PLACE(ReleaseTensorTypeAndShapeInfo, 99);
ORT_PLACE(ReleaseCustomOpDomain, 101);
ORT_PLACE(KernelInfoGetAttributeArray_int64, 163);
ORT_PLACE(KernelContext_GetGPUComputeStream, 193);
ORT_PLACE(KernelInfo_GetInputCount, 230);
ORT_PLACE(KernelInfo_GetOutputCount, 231);
ORT_PLACE(HasSessionConfigEntry, 237);
ORT_PLACE(GetSessionConfigEntry, 238);
ORT_PLACE(KernelInfoGetConstantInput_tensor, 249);
ORT_PLACE(KernelContext_ParallelFor, 274);
#undef ORT_PLACE

typedef struct OrtApiBase {
  const OrtApi *(ORT_CALL *GetApi)(uint32_t version);
  const char *(ORT_CALL *GetVersionString)(void);
} OrtApiBase;

/* What a library tells of one operator. A NULL execution provider is the CPU's. */
struct OrtCustomOp {
  uint32_t version;
  void *(ORT_CALL *CreateKernel)(const OrtCustomOp *op, const OrtApi *api,
                                 const OrtKernelInfo *info);
  const char *(ORT_CALL *GetName)(const OrtCustomOp *op);
  const char *(ORT_CALL *GetExecutionProviderType)(const OrtCustomOp *op);
  int(ORT_CALL *GetInputType)(const OrtCustomOp *op, size_t index);
  size_t(ORT_CALL *GetInputTypeCount)(const OrtCustomOp *op);
  int(ORT_CALL *GetOutputType)(const OrtCustomOp *op, size_t index);
  size_t(ORT_CALL *GetOutputTypeCount)(const OrtCustomOp *op);
  void(ORT_CALL *KernelCompute)(void *kernel, OrtKernelContext *context);
  void(ORT_CALL *KernelDestroy)(void *kernel);
  int(ORT_CALL *GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
  int(ORT_CALL *GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
  int(ORT_CALL *GetInputMemoryType)(const OrtCustomOp *op, size_t index);
  int(ORT_CALL *GetVariadicInputMinArity)(const OrtCustomOp *op);
  int(ORT_CALL *GetVariadicInputHomogeneity)(const OrtCustomOp *op);
  int(ORT_CALL *GetVariadicOutputMinArity)(const OrtCustomOp *op);
  int(ORT_CALL *GetVariadicOutputHomogeneity)(const OrtCustomOp *op);
  OrtStatus *(ORT_CALL *CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api,
                                        const OrtKernelInfo *info, void **kernel);
  OrtStatus *(ORT_CALL *KernelComputeV2)(void *kernel, OrtKernelContext *context);
  OrtUnused InferOutputShapeFn;
  OrtUnused GetStartVersion;
  OrtUnused GetEndVersion;
  OrtUnused GetMayInplace;
  OrtUnused ReleaseMayInplace;
  OrtUnused GetAliasMap;
  OrtUnused ReleaseAliasMap;
};
_Static_assert(sizeof(OrtCustomOp) == 26 * sizeof(OrtUnused), "OrtCustomOp");

#endif
