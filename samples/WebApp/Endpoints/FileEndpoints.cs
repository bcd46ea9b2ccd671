using Microsoft.Extensions.FileProviders;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Files from disk, by a handler and by the middleware. The build puts them beside the program.</summary>
internal static class FileEndpoints
{
    private static readonly string Folder = Path.Combine(AppContext.BaseDirectory, "wwwroot");

    public static void MapFiles(this WebApplication app)
    {
        if (!Directory.Exists(Folder))
        {
            // The program was copied without them.
            return;
        }

        app.UseStaticFiles(new StaticFileOptions { FileProvider = new PhysicalFileProvider(Folder), RequestPath = "/static" });

        var file = Path.Combine(Folder, "200k.txt");
        app.MapGet("/file", () => Results.File(file, "text/plain"));
    }
}
