/* A driver without a GPU, for test_hardware.py: as libcuda.so.1 and libnvcuvid.so.1 it decodes by looking pictures up.

   FAKE_NVDEC names a file of records: crc32 of the slices of a picture with their start codes, width, height, as
   uint32; then its pixels, NV12. A picture that is not in there cannot be decoded;
   one of width 0 ends the process. FAKE_NVDEC_LOG gets a letter a call:
   d for a decoded picture, c for one that is copied to the CPU. Device memory is memory. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define STUB(name) int name(void) { return 0; }
#define NUM_SURFACES 64

struct decoder { unsigned long width, height, pitch; uint8_t *surfaces[NUM_SURFACES]; };

static void note(char letter)
{
    const char *path = getenv("FAKE_NVDEC_LOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) { fputc(letter, file); fclose(file); }
}

int cuInit(unsigned flags)  /* CUDA reserves more addresses than any machine has memory */
{
    void *reserved = mmap(NULL, 1ul << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return reserved == MAP_FAILED ? 2 : 0;
}

int cuDeviceGetCount(int *count)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    *count = visible && !*visible ? 0 : 2;
    return *count ? 0 : 100;
}

int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 512; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)8; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 4; *active = 1; return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { *context = (void *)8; return 0; }
int cuCtxPopCurrent_v2(void **context) { *context = (void *)8; return 0; }
int cuMemAlloc_v2(uint64_t *pointer, size_t size) { *pointer = (uint64_t)malloc(size); return *pointer ? 0 : 2; }
int cuMemFree_v2(uint64_t pointer) { free((void *)pointer); return 0; }
int cuGetErrorName(int error, const char **text) { *text = "ERROR"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "an error"; return 0; }

int cuMemcpy2DAsync_v2(const uint64_t *copy, void *stream)  /* x, y, type, host, device, array, pitch; twice; size */
{
    const uint64_t *to = copy + 7, width = copy[14], height = copy[15];
    const uint8_t *source = (uint8_t *)((int)copy[2] == 1 ? copy[3] : copy[4]) + copy[1] * copy[6] + copy[0];
    uint8_t *target = (uint8_t *)((int)to[2] == 1 ? to[3] : to[4]) + to[1] * to[6] + to[0];
    for (uint64_t y = 0; y < height; y++)
        memcpy(target + y * to[6], source + y * copy[6], width);
    if ((int)to[2] == 1)
        note('c');
    return 0;
}

int cuMemcpy2D_v2(const uint64_t *copy) { return cuMemcpy2DAsync_v2(copy, NULL); }

int cuvidGetDecoderCaps(uint32_t *caps)  /* H.264 and the like in 4:2:0, 8 bits */
{
    uint8_t *out = (uint8_t *)(caps + 6);
    out[0] = caps[1] == 1 && caps[2] == 0;
    out[1] = 1;
    out[2] = 1;  /* NV12 */
    caps[7] = caps[8] = 8192;
    caps[9] = 1 << 20;
    ((uint16_t *)caps)[20] = ((uint16_t *)caps)[21] = 16;
    return 0;
}

int cuvidCreateDecoder(void **made, const unsigned long *info)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);
    decoder->width = info[0];
    decoder->height = info[1];
    decoder->pitch = (info[0] + 511) / 512 * 512;
    *made = decoder;
    return 0;
}

int cuvidDestroyDecoder(void *made)
{
    struct decoder *decoder = made;
    for (int i = 0; i < NUM_SURFACES; i++)
        free(decoder->surfaces[i]);
    free(decoder);
    return 0;
}

static uint32_t crc32_of(const uint8_t *data, uint32_t length)
{
    uint32_t crc = ~0u;
    while (length--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

int cuvidDecodePicture(void *made, const uint32_t *picture)
{
    struct decoder *decoder = made;
    uint8_t **surface = &decoder->surfaces[picture[2] % NUM_SURFACES], *bits;
    uint32_t record[3], crc;
    memcpy(&bits, picture + 8, sizeof bits);
    crc = crc32_of(bits, picture[6]);
    if (!*surface)
        *surface = calloc(decoder->pitch, decoder->height * 2);
    FILE *table = fopen(getenv("FAKE_NVDEC"), "rb");
    while (fread(record, sizeof record, 1, table) == 1) {
        if (record[0] != crc) {
            fseek(table, record[1] * record[2] * 3 / 2, SEEK_CUR);
            continue;
        }
        if (!record[1])
            abort();
        for (uint32_t y = 0; y < record[2] * 3 / 2; y++) {
            uint64_t row = y < record[2] ? y : y - record[2] + decoder->height;
            if (fread(*surface + row * decoder->pitch, record[1], 1, table) != 1)
                abort();
        }
        fclose(table);
        note('d');
        return 0;
    }
    fclose(table);
    return 1;
}

int cuvidMapVideoFrame64(void *made, int index, uint64_t *pointer, unsigned *pitch, void *parameters)
{
    struct decoder *decoder = made;
    *pointer = (uint64_t)decoder->surfaces[index % NUM_SURFACES];
    *pitch = decoder->pitch;
    return *pointer ? 0 : 1;
}

/* What FFmpeg looks for when it loads a driver, and does not need here. */
STUB(cuArray3DCreate_v2) STUB(cuArrayCreate_v2) STUB(cuArrayDestroy) STUB(cuCtxDestroy_v2) STUB(cuCtxGetCurrent)
STUB(cuCtxGetDevice) STUB(cuCtxPushCurrent_v2) STUB(cuCtxSetLimit) STUB(cuDestroyExternalMemory)
STUB(cuDestroyExternalSemaphore) STUB(cuDeviceComputeCapability) STUB(cuDeviceGetByPCIBusId) STUB(cuDeviceGetLuid)
STUB(cuDeviceGetName) STUB(cuDeviceGetPCIBusId) STUB(cuDeviceGetUuid) STUB(cuDeviceGetUuid_v2)
STUB(cuDevicePrimaryCtxRelease) STUB(cuDevicePrimaryCtxReset) STUB(cuDevicePrimaryCtxSetFlags)
STUB(cuDriverGetVersion) STUB(cuEGLStreamConsumerDisconnect) STUB(cuEGLStreamProducerConnect)
STUB(cuEGLStreamProducerDisconnect) STUB(cuEGLStreamProducerPresentFrame) STUB(cuEGLStreamProducerReturnFrame)
STUB(cuEventCreate) STUB(cuEventDestroy_v2) STUB(cuEventQuery) STUB(cuEventRecord) STUB(cuEventSynchronize)
STUB(cuExternalMemoryGetMappedBuffer) STUB(cuExternalMemoryGetMappedMipmappedArray) STUB(cuGLGetDevices_v2)
STUB(cuGraphicsGLRegisterImage) STUB(cuGraphicsMapResources) STUB(cuGraphicsResourceGetMappedPointer_v2)
STUB(cuGraphicsSubResourceGetMappedArray) STUB(cuGraphicsUnmapResources) STUB(cuGraphicsUnregisterResource)
STUB(cuImportExternalMemory) STUB(cuImportExternalSemaphore) STUB(cuLaunchKernel) STUB(cuLinkAddData)
STUB(cuLinkComplete) STUB(cuLinkCreate) STUB(cuLinkDestroy) STUB(cuMemAllocManaged) STUB(cuMemAllocPitch_v2)
STUB(cuMemcpy) STUB(cuMemcpyAsync) STUB(cuMemcpyDtoDAsync_v2) STUB(cuMemcpyDtoD_v2) STUB(cuMemcpyDtoHAsync_v2)
STUB(cuMemcpyDtoH_v2) STUB(cuMemcpyHtoDAsync_v2) STUB(cuMemcpyHtoD_v2) STUB(cuMemsetD8Async)
STUB(cuMipmappedArrayDestroy) STUB(cuMipmappedArrayGetLevel) STUB(cuModuleGetFunction) STUB(cuModuleGetGlobal)
STUB(cuModuleLoadData) STUB(cuModuleUnload) STUB(cuSignalExternalSemaphoresAsync) STUB(cuStreamAddCallback)
STUB(cuStreamCreate) STUB(cuStreamDestroy_v2) STUB(cuStreamQuery) STUB(cuStreamSynchronize) STUB(cuStreamWaitEvent)
STUB(cuTexObjectCreate) STUB(cuTexObjectDestroy) STUB(cuWaitExternalSemaphoresAsync) STUB(cuvidCreateVideoParser)
STUB(cuvidCreateVideoSource) STUB(cuvidCreateVideoSourceW) STUB(cuvidCtxLock) STUB(cuvidCtxLockCreate)
STUB(cuvidCtxLockDestroy) STUB(cuvidCtxUnlock) STUB(cuvidDestroyVideoParser) STUB(cuvidDestroyVideoSource)
STUB(cuvidGetDecodeStatus) STUB(cuvidGetSourceAudioFormat) STUB(cuvidGetSourceVideoFormat)
STUB(cuvidGetVideoSourceState) STUB(cuvidParseVideoData) STUB(cuvidReconfigureDecoder) STUB(cuvidSetVideoSourceState)
STUB(cuvidUnmapVideoFrame64)
